rule report:
    input:
        tables=[f"{RESULTS}/6_leaderboards/{table}.csv" for table in TABLES],
        maps=dag.map_files(CONFIG),
        data=dag.data_files(CONFIG),
        encoders=dag.encoder_files(CONFIG),
    output:
        page=report(
            f"{RESULTS}/7_report/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "everything on one page"},
        ),
        figures=report(
            directory(f"{RESULTS}/7_report/figures"),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/7_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/7_report.tsv"
    threads: 4
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "report"),
    shell:
        "unmask report --config {params.config:q} --jobs {threads} > {log:q} 2>&1"
