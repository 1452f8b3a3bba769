MODEL = f"{RESULTS}/3_finetune/{{domain}}/{{encoder}}/p{{pretrain_seed}}f{{finetune_seed}}"


rule finetune_model:
    input:
        card=f"{RESULTS}/1_data/{{domain}}/card.json",
        data=[f"{RESULTS}/1_data/{{domain}}/{split}.safetensors" for split in SPLITS],
        encoder=dag.encoder_of(CONFIG),
    output:
        weights=f"{MODEL}/model.safetensors",
        sidecar=f"{MODEL}/model.json",
        history=f"{MODEL}/history.csv",
        predictions=f"{MODEL}/predictions.parquet",
        report=f"{MODEL}/report.json",
    log:
        f"{RESULTS}/logs/3_finetune/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/3_finetune/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}.tsv"
    resources:
        gpu=1,
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "finetune"),
    shell:
        "unmask finetune --config {params.config:q} --domain {wildcards.domain} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} --finetune-seed {wildcards.finetune_seed} > {log:q} 2>&1"


rule finetune:
    input:
        dag.model_files(CONFIG),
