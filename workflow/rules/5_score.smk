SCORES = f"{RESULTS}/5_scores/{{domain}}/{{encoder}}/p{{pretrain_seed}}f{{finetune_seed}}"


rule score_group:
    input:
        data=f"{RESULTS}/1_data/{{domain}}/test.safetensors",
        interventions=f"{RESULTS}/1_data/{{domain}}/interventions.safetensors",
        model=f"{MODEL}/model.safetensors",
        maps=f"{MAPS}/{{group}}.json",
    output:
        table=f"{SCORES}/{{group}}.parquet",
        curves=f"{SCORES}/{{group}}.curves.parquet",
        judged=f"{SCORES}/{{group}}.judged.parquet",
    log:
        f"{RESULTS}/logs/5_scores/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}_{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/5_scores/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}_{{group}}.tsv"
    resources:
        gpu=1,
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "score"),
    shell:
        "unmask score --config {params.config:q} --domain {wildcards.domain} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} --finetune-seed {wildcards.finetune_seed}"
        " --group {wildcards.group} > {log:q} 2>&1"


rule scores:
    input:
        dag.score_files(CONFIG),
