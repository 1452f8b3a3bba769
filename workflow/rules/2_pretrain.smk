# Encoders that learn to fill in have a picture of it.
rule pretrain_encoder:
    input:
        pool=f"{RESULTS}/1_data/pool.safetensors",
        shared=dag.shared_pretraining(CONFIG),
    output:
        weights=f"{RESULTS}/2_pretrain/{{encoder}}/p{{pretrain_seed}}/encoder.safetensors",
        sidecar=f"{RESULTS}/2_pretrain/{{encoder}}/p{{pretrain_seed}}/encoder.json",
        history=f"{RESULTS}/2_pretrain/{{encoder}}/p{{pretrain_seed}}/history.csv",
        picture=report(
            f"{RESULTS}/2_pretrain/{{encoder}}/p{{pretrain_seed}}/reconstruction.png",
            caption="../report/reconstruction.rst",
            category="Pretraining",
            labels={"encoder": "{encoder}", "seed": "{pretrain_seed}"},
        ),
    log:
        f"{RESULTS}/logs/2_pretrain/{{encoder}}_p{{pretrain_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/2_pretrain/{{encoder}}_p{{pretrain_seed}}.tsv"
    wildcard_constraints:
        encoder=dag.among(CONFIG.masked),
    # The longest chains of the DAG start here: what waits for them is picked first.
    priority: 10
    threads: CONFIG["pretrain"]["processes"]
    resources:
        gpu=CONFIG["pretrain"]["processes"],
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "pretrain"),
    shell:
        "unmask pretrain --config {params.config:q} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} > {log:q} 2>&1"


use rule pretrain_encoder as pretrain_without_picture with:
    output:
        weights=f"{RESULTS}/2_pretrain/{{encoder}}/p{{pretrain_seed}}/encoder.safetensors",
        sidecar=f"{RESULTS}/2_pretrain/{{encoder}}/p{{pretrain_seed}}/encoder.json",
    wildcard_constraints:
        encoder=dag.among(name for name in CONFIG.pretrained if name not in CONFIG.masked),


rule pretrain:
    input:
        dag.encoder_files(CONFIG),
