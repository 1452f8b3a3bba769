TABLES = ("leaderboard", "by_domain", "overall", "ranking", "mask_ratio", "accuracy", "failed", "controls")


rule aggregate:
    input:
        scores=dag.score_files(CONFIG),
        models=dag.model_files(CONFIG),
    output:
        scores=f"{RESULTS}/6_leaderboards/scores.parquet",
        cost=f"{RESULTS}/6_leaderboards/cost.parquet",
        tables=report(
            [f"{RESULTS}/6_leaderboards/{table}.csv" for table in TABLES],
            category="Leaderboards",
        ),
    params:
        settings=dag.settings(CONFIG, "aggregate"),
    log:
        f"{RESULTS}/logs/6_leaderboards.log",
    benchmark:
        f"{RESULTS}/benchmarks/6_leaderboards.tsv"
    shell:
        "unmask aggregate --config {RESULTS}/config.json > {log} 2>&1"


rule leaderboards:
    input:
        f"{RESULTS}/6_leaderboards/leaderboard.csv",
