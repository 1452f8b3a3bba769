rule report:
    input:
        tables=[f"{RESULTS}/6_leaderboards/{table}.csv" for table in TABLES],
        maps=dag.map_files(CONFIG),
        data=dag.data_files(CONFIG),
        encoders=dag.encoder_files(CONFIG),
    output:
        page=report(f"{RESULTS}/7_report/index.html", category="Report"),
    params:
        settings=dag.settings(CONFIG, "report"),
    log:
        f"{RESULTS}/logs/7_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/7_report.tsv"
    shell:
        "unmask report --config {RESULTS}/config.json > {log} 2>&1"
