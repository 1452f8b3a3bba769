# From pixels to the page: 1_data -> 2_pretrain -> 3_finetune -> 4_maps -> 5_scores -> 6_leaderboards -> 7_report
#
#   snakemake --cores 2                                    the default benchmark (config.yaml)
#   snakemake --cores 2 --configfile config/smoke.yaml     another config (it replaces config.yaml, nothing is merged)
#   snakemake --cores 2 maps                               up to a stage:
#                                                          data pretrain finetune maps scores inside leaderboards
#   snakemake -n                                           what would run, and why
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")

from unmask import dag

dag.use_this_environment()
CONFIG = dag.configure(config, workflow.overwrite_configfiles, Path(workflow.basedir) / "config.yaml")
RESULTS = str(CONFIG.results)


report: "workflow/report/workflow.rst"


# Ignored unless containers are asked for with `--software-deployment-method apptainer`.
container: "docker://python:3.11-slim"


wildcard_constraints:
    domain="|".join(CONFIG["domains"]),
    encoder="|".join(CONFIG["encoders"]),
    group="|".join(CONFIG.groups),
    pretrain_seed=r"\d+",
    finetune_seed=r"\d+",


onstart:
    dag.start(CONFIG)


include: "workflow/rules/1_data.smk"
include: "workflow/rules/2_pretrain.smk"
include: "workflow/rules/3_finetune.smk"
include: "workflow/rules/4_explain.smk"
include: "workflow/rules/5_score.smk"
include: "workflow/rules/5_inside.smk"
include: "workflow/rules/6_aggregate.smk"
include: "workflow/rules/7_report.smk"
include: "workflow/rules/8_manifest.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/7_report/index.html",
        f"{RESULTS}/manifest.json",


localrules:
    all,
    data,
    pretrain,
    finetune,
    maps,
    scores,
    inside,
    leaderboards,
