INSIDE = f"{RESULTS}/5_inside/{{domain}}/{{encoder}}/p{{pretrain_seed}}f{{finetune_seed}}"


rule inside_model:
    input:
        data=[f"{RESULTS}/1_data/{{domain}}/{name}.safetensors" for name in ("train", "test", "interventions")],
        card=f"{RESULTS}/1_data/{{domain}}/card.json",
        model=f"{MODEL}/model.safetensors",
        encoder=dag.encoder_of(CONFIG),
    output:
        layers=f"{INSIDE}/layers.parquet",
        missingness=f"{INSIDE}/missingness.parquet",
        causes=f"{INSIDE}/causes.parquet",
        grams=f"{INSIDE}/grams.safetensors",
        pictures=f"{INSIDE}/pictures.safetensors",
        counterfactuals=f"{INSIDE}/counterfactuals.parquet",
        surrogates=f"{INSIDE}/surrogates.parquet",
        contents=f"{INSIDE}/surrogates.json",
        concepts=f"{INSIDE}/concepts.safetensors",
        dissection=f"{INSIDE}/dissection.parquet",
        tcav=f"{INSIDE}/tcav.parquet",
        factors=f"{INSIDE}/factors.parquet",
    log:
        f"{RESULTS}/logs/5_inside/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/5_inside/{{domain}}_{{encoder}}_p{{pretrain_seed}}f{{finetune_seed}}.tsv"
    resources:
        gpu=1,
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "inside"),
    shell:
        "unmask inside --config {params.config:q} --domain {wildcards.domain} --encoder {wildcards.encoder}"
        " --pretrain-seed {wildcards.pretrain_seed} --finetune-seed {wildcards.finetune_seed} > {log:q} 2>&1"


rule inside:
    input:
        dag.inside_files(CONFIG),
