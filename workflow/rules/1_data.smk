SPLITS = ("train", "val", "test")


rule data_domain:
    output:
        arrays=[f"{RESULTS}/1_data/{{domain}}/{split}.safetensors" for split in SPLITS],
        tables=[f"{RESULTS}/1_data/{{domain}}/{split}.csv" for split in SPLITS],
        unlabelled=f"{RESULTS}/1_data/{{domain}}/unlabelled.safetensors",
        interventions=f"{RESULTS}/1_data/{{domain}}/interventions.safetensors",
        card=f"{RESULTS}/1_data/{{domain}}/card.json",
        preview=report(
            f"{RESULTS}/1_data/{{domain}}/preview.png",
            caption="../report/preview.rst",
            category="Data",
            labels={"domain": "{domain}"},
        ),
    log:
        f"{RESULTS}/logs/1_data/{{domain}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/1_data/{{domain}}.tsv"
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "data"),
    shell:
        "unmask data --config {params.config:q} --domain {wildcards.domain} > {log:q} 2>&1"


rule data_pool:
    input:
        arrays=dag.pool_sources(CONFIG),
    output:
        arrays=f"{RESULTS}/1_data/pool.safetensors",
        table=f"{RESULTS}/1_data/pool.csv",
    log:
        f"{RESULTS}/logs/1_data/pool.log",
    benchmark:
        f"{RESULTS}/benchmarks/1_data/pool.tsv"
    threads: max(1, CONFIG["pretrain"].get("pool", {}).get("workers", 1))
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "data", pool=True),
    shell:
        "unmask data --config {params.config:q} --pool > {log:q} 2>&1"


rule data:
    input:
        dag.data_files(CONFIG),
