SCORES = f"{RESULTS}/5_scores/{{domain}}/{{encoder}}/p{{pretrain_seed}}f{{finetune_seed}}"


rule score_group:
    input:
        data=f"{RESULTS}/1_data/{{domain}}/test.safetensors",
        model=f"{MODEL}/model.safetensors",
        maps=f"{MAPS}/{{group}}.json",
    output:
        table=f"{SCORES}/{{group}}.parquet",
    params:
        settings=dag.settings(CONFIG, "score"),
    log:
        f"{RESULTS}/logs/5_scores/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}_{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/5_scores/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}_{{group}}.tsv"
    resources:
        gpu=1,
    shell:
        "unmask score --config {RESULTS}/config.json --domain {wildcards.domain} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} --finetune-seed {wildcards.finetune_seed}"
        " --group {wildcards.group} > {log} 2>&1"


rule scores:
    input:
        dag.score_files(CONFIG),
