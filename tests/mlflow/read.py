"""Reads what an MLflow server holds of a pipeline, with MLflow's own client, and prints it as JSON.

    read.py URI PIPELINE
"""

import json
import sys

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import ViewType

uri, pipeline = sys.argv[1:]
name = f"tuneloop-{pipeline}"
client = MlflowClient(tracking_uri=uri, registry_uri=uri)


def artifact(run, path):
    local = download_artifacts(run_id=run.info.run_id, artifact_path=path, tracking_uri=uri)
    with open(local, encoding="utf-8") as file:
        return json.load(file)


def described(run):
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start_time": run.info.start_time,
        "end_time": run.info.end_time,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            key: [
                {"step": point.step, "at": point.timestamp, "value": point.value}
                for point in client.get_metric_history(run.info.run_id, key)
            ]
            for key in run.data.metrics
        },
        "inputs": [
            {
                "context": {tag.key: tag.value for tag in read.tags}.get("mlflow.data.context"),
                "name": read.dataset.name,
                "digest": read.dataset.digest,
                "source": json.loads(read.dataset.source),
                "profile": json.loads(read.dataset.profile),
            }
            for read in run.inputs.dataset_inputs
        ],
        "artifacts": {
            file.path: artifact(run, file.path) for file in client.list_artifacts(run.info.run_id)
        },
    }


experiment = client.get_experiment_by_name(name)
runs = []
if experiment is not None:
    found = client.search_runs(
        [experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1000, order_by=["attributes.start_time ASC"]
    )
    runs = [described(run) for run in found]
versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
print(
    json.dumps(
        {
            "runs": runs,
            "versions": [
                {
                    "version": version.version,
                    "source": version.source,
                    "run_id": version.run_id,
                    "description": version.description,
                    "tags": version.tags,
                }
                for version in versions
            ],
            "aliases": dict(client.get_registered_model(name).aliases) if versions else {},
        }
    )
)
