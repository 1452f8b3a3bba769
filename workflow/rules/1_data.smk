SPLITS = ("train", "val", "test")


rule data_domain:
    output:
        arrays=[f"{RESULTS}/1_data/{{domain}}/{split}.safetensors" for split in SPLITS],
        tables=[f"{RESULTS}/1_data/{{domain}}/{split}.csv" for split in SPLITS],
        unlabelled=f"{RESULTS}/1_data/{{domain}}/unlabelled.safetensors",
        card=f"{RESULTS}/1_data/{{domain}}/card.json",
        preview=report(
            f"{RESULTS}/1_data/{{domain}}/preview.png",
            category="Data",
            labels={"domain": "{domain}"},
        ),
    params:
        settings=dag.settings(CONFIG, "data"),
    log:
        f"{RESULTS}/logs/1_data/{{domain}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/1_data/{{domain}}.tsv"
    shell:
        "unmask data --config {RESULTS}/config.json --domain {wildcards.domain} > {log} 2>&1"


rule data_pool:
    input:
        arrays=[
            f"{RESULTS}/1_data/{domain}/{name}.safetensors"
            for domain in CONFIG["domains"]
            for name in ("train", "unlabelled")
        ],
    output:
        arrays=f"{RESULTS}/1_data/pool.safetensors",
        table=f"{RESULTS}/1_data/pool.csv",
    params:
        settings=dag.settings(CONFIG, "data", pool=True),
    log:
        f"{RESULTS}/logs/1_data/pool.log",
    benchmark:
        f"{RESULTS}/benchmarks/1_data/pool.tsv"
    shell:
        "unmask data --config {RESULTS}/config.json --pool > {log} 2>&1"


rule data:
    input:
        dag.data_files(CONFIG),
