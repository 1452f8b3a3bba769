# The maps themselves, 4_maps/<model>/<explainer>.safetensors, are named in the index and not here: Snakemake deletes a
# job's outputs before it runs again, and a group that gained an explainer must compute that one only.
MAPS = f"{RESULTS}/4_maps/{{domain}}/{{encoder}}/p{{pretrain_seed}}f{{finetune_seed}}"


rule explain_group:
    input:
        data=f"{RESULTS}/1_data/{{domain}}/test.safetensors",
        model=f"{MODEL}/model.safetensors",
    output:
        index=f"{MAPS}/{{group}}.json",
    log:
        f"{RESULTS}/logs/4_maps/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}_{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/4_maps/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}_{{group}}.tsv"
    resources:
        gpu=1,
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "explain"),
    shell:
        "unmask explain --config {params.config:q} --domain {wildcards.domain} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} --finetune-seed {wildcards.finetune_seed}"
        " --group {wildcards.group} > {log:q} 2>&1"


rule maps:
    input:
        dag.map_files(CONFIG),
