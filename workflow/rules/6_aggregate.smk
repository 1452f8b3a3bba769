TABLES = (
    "leaderboard",
    "by_domain",
    "overall",
    "ranking",
    "metric_clusters",
    "chance",
    "gates",
    "mask_ratio",
    "accuracy",
    "encoders",
    "failed",
    "controls",
    "explainers",
    "friedman",
    "pairwise",
    "critical_difference",
    "agreement",
    "stability",
    "ratio_effects",
    "hypotheses",
    "metric_quality",
    "curves",
    "inside",
    "missingness",
    "inside_effects",
    "cka",
    "image_maps",
    "counterfactuals",
    "surrogates",
    "causes",
    "causal_model",
)


rule aggregate:
    input:
        scores=dag.score_files(CONFIG),
        models=dag.model_files(CONFIG),
        inside=dag.inside_files(CONFIG),
        submissions=dag.submission_files(CONFIG),
    output:
        scores=f"{RESULTS}/6_leaderboards/scores.parquet",
        cost=f"{RESULTS}/6_leaderboards/cost.parquet",
        curves=f"{RESULTS}/6_leaderboards/curves.parquet",
        tables=[
            report(
                f"{RESULTS}/6_leaderboards/{table}.csv",
                caption="../report/tables.rst",
                category="Tables",
                labels={"table": table.replace("_", " ")},
            )
            for table in TABLES
        ],
        large=[
            f"{RESULTS}/6_leaderboards/{table}.parquet"
            for table in ("leaderboard", "ranking", "mask_ratio", "controls")
        ],
        latex=[f"{RESULTS}/6_leaderboards/latex/{table}.tex" for table in ("by_domain", "overall", "ranking")],
    log:
        f"{RESULTS}/logs/6_leaderboards.log",
    benchmark:
        f"{RESULTS}/benchmarks/6_leaderboards.tsv"
    threads: 4
    params:
        config=f"{RESULTS}/config.json",
        settings=dag.settings(CONFIG, "aggregate"),
    shell:
        "unmask aggregate --config {params.config:q} --jobs {threads} > {log:q} 2>&1"


rule leaderboards:
    input:
        f"{RESULTS}/6_leaderboards/leaderboard.csv",
