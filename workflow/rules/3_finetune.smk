def encoder_of(wildcards):
    """The pretrained weights a model starts from; none for `scratch`."""
    if wildcards.encoder not in CONFIG.pretrained:
        return []
    return f"{RESULTS}/2_pretrain/{wildcards.encoder}/p{wildcards.pretrain_seed}/encoder.safetensors"


MODEL = f"{RESULTS}/3_finetune/{{domain}}/{{encoder}}/p{{pretrain_seed}}f{{finetune_seed}}"


rule finetune_model:
    input:
        card=f"{RESULTS}/1_data/{{domain}}/card.json",
        data=[f"{RESULTS}/1_data/{{domain}}/{split}.safetensors" for split in SPLITS],
        encoder=encoder_of,
    output:
        weights=f"{MODEL}/model.safetensors",
        sidecar=f"{MODEL}/model.json",
        history=f"{MODEL}/history.csv",
        predictions=f"{MODEL}/predictions.parquet",
        report=f"{MODEL}/report.json",
    params:
        settings=dag.settings(CONFIG, "finetune"),
    log:
        f"{RESULTS}/logs/3_finetune/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/3_finetune/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}.tsv"
    resources:
        gpu=1,
    shell:
        "unmask finetune --config {RESULTS}/config.json --domain {wildcards.domain} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} --finetune-seed {wildcards.finetune_seed} > {log} 2>&1"


rule finetune:
    input:
        dag.model_files(CONFIG),
