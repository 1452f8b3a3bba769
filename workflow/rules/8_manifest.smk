rule manifest:
    input:
        data=dag.data_files(CONFIG),
        encoders=dag.encoder_files(CONFIG),
        models=dag.model_files(CONFIG),
        maps=dag.map_files(CONFIG),
        scores=dag.score_files(CONFIG),
        inside=dag.inside_files(CONFIG),
        submissions=dag.submission_files(CONFIG),
        tables=[f"{RESULTS}/6_leaderboards/{table}.csv" for table in TABLES],
        page=f"{RESULTS}/7_report/index.html",  # last, so that every job's time is known
    output:
        f"{RESULTS}/manifest.json",
    log:
        f"{RESULTS}/logs/manifest.log",
    benchmark:
        f"{RESULTS}/benchmarks/manifest.tsv"
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "manifest"),
    shell:
        "unmask manifest --config {params.config:q} > {log:q} 2>&1"
