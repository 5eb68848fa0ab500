"""Lints and renders the chart with an old Helm (the `helm` in PATH) and a new one (Helm's own engine as a library).

Usage: chart.py CHART OUTPUT. Writes OUTPUT/KUBERNETES-VERSION/VALUES.yaml for each set of values in CHART/ci.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import helm_python
import yaml

RELEASE, NAMESPACE = "example", "automation"
KUBERNETES_VERSIONS = ("1.25", "1.32")

# Values that must be refused: what is laid over ci/minimal.yaml, and words that the message must have.
REFUSED = [
    ({"secret": {"databaseUrl": ""}}, "Set secret.databaseUrl"),
    ({"secret": {"openaiApiKey": ""}}, "Set secret.openaiApiKey"),
    ({"secret": {"existingSecret": "credentials"}}, "leave secret.databaseUrl"),
    ({"secret": {"databaseUrl": "mysql://host/database"}}, "databaseUrl"),
    ({"secret": {"databaseURL": "postgres://host/database"}}, "databaseURL"),
    ({"replicaCount": 2}, "ReadWriteMany"),
    ({"replicaCount": 2, "datasets": {"persistence": {"enabled": False}}}, "ReadWriteMany"),
    ({"replicaCount": 0}, "replicaCount"),
    ({"replicas": 2}, "replicas"),
    ({"config": {"roles": ["api", "cron"]}}, "roles"),
    ({"config": {"roles": []}}, "roles"),
    ({"config": {"openaiBaseUrl": "gateway.example/v1"}}, "openaiBaseUrl"),
    ({"config": {"shutdownGraceSeconds": "25s"}}, "shutdownGraceSeconds"),
    ({"pipelines": {"engagementThreshold": 6}}, "engagementThreshold"),
    ({"pipelines": {"hook": {"model": ""}}}, "model"),
    ({"image": {"digest": "sha256:short"}}, "digest"),
    ({"datasets": {"url": "datasets"}}, "url"),
    ({"datasets": {"persistence": {"size": "8 GB"}}}, "size"),
    ({"service": {"type": "ExternalName"}}, "type"),
    ({"azure": {"endpoint": "https://example.openai.azure.com"}}, "azure.existingSecret"),
    ({"azure": {"existingSecret": "azure"}}, "azure.endpoint"),
    ({"azure": {"endpoint": "example.openai.azure.com", "existingSecret": "azure"}}, "endpoint"),
    ({"webhook": {"secret": "whsec_MDEy"}}, "secret"),
    ({"publication": {"configMaps": {"enabled": True}}, "serviceAccount": {"create": False}}, "serviceAccount.create"),
    ({"publication": {"configMaps": {"names": ["Models"]}}}, "names"),
    ({"publication": {"secrets": ["models"]}}, "secrets"),
    ({"publication": {"files": {"enabled": True}}}, "publication.files.existingClaim"),
    ({"publication": {"files": {"existingClaim": "models"}}}, "publication.files.enabled"),
    ({"publication": {"signing": {"existingSecret": "signing"}}}, "publication.signing.keys"),
    ({"publication": {"signing": {"keys": ["PUBLICATION_SECRET_SHOP"]}}}, "publication.signing.existingSecret"),
    ({"publication": {"signing": {"existingSecret": "signing", "keys": ["DATABASE_URL"]}}}, "keys"),
    ({"publication": {"allowPrivateTargets": True}}, "allowPrivateTargets"),
    ({"config": {"publicUrl": "tuneloop.example"}}, "publicUrl"),
    ({"prices": {"models": {}}}, "currency"),
    ({"prices": {"currency": "dollars", "models": {}}}, "currency"),
    ({"prices": {"currency": "USD", "models": {"a": {"training": 1}}}}, "training"),
    ({"prices": {"currency": "USD", "models": {"a": {"input_per_million_tokens": 1}}}}, "output_per_million_tokens"),
]


def run_helm(*arguments):
    """Runs the old Helm; returns its status and everything that it printed."""
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def render_old(chart, values_file, kubernetes):
    """Renders with the old Helm and returns its status and output."""
    return run_helm("template", RELEASE, chart, "--namespace", NAMESPACE, "--kube-version", f"{kubernetes}.0",
                    "--values", values_file)


def render_new(chart, values):
    """Renders with the new Helm and returns the manifests as one text."""
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        rendered = loaded.render(values, name=RELEASE, namespace=NAMESPACE)
    return "\n---\n".join(text for path, text in rendered.items() if path.endswith(".yaml"))


def objects(text):
    """The manifests of a rendering by kind; the chart makes one of each."""
    found = [each for each in yaml.safe_load_all(text) if each]
    by_kind = {each["kind"]: each for each in found}
    assert len(by_kind) == len(found), f"two objects of one kind: {[each['kind'] for each in found]}"
    return by_kind


def merged(base, over):
    """`base` with the keys of `over` laid over it."""
    both = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if nested else value
    return both


def check_lint(chart, values_file, values):
    """Both Helms must find nothing, warnings included."""
    arguments = ["--values", values_file] if values_file else []
    status, output = run_helm("lint", "--strict", chart, *arguments)
    assert status == 0, output
    report = helm_python.lint(chart, values, strict=True)
    findings = [each for each in report["messages"] if each["severity"] >= 2]
    assert not report["errors"] and not findings, report


def check_pods(values_file, by_kind):
    """What a schema cannot say about the Deployment."""
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    serve = pod["containers"][0]
    environment = {each["name"]: each.get("value") for each in serve["env"]}
    assert len(environment) == len(serve["env"]), f"{values_file}: a variable is set twice"
    assert environment["DATABASE_URL"] is None, f"{values_file}: the database's URL is not in the Secret"
    assert environment["OPENAI_API_KEY"] is None, f"{values_file}: the provider's key is not in the Secret"
    assert re.fullmatch(r"\d+", environment["FINE_TUNING_MIN_EXAMPLES"]), f"{values_file}: not a whole number"
    for variable in ("OPENAI_WEBHOOK_SECRET", "AZURE_OPENAI_API_KEY"):
        assert environment.get(variable) is None, f"{values_file}: {variable} is not from a Secret"
    check_targets(values_file, serve, environment)
    check_prices(values_file, by_kind, serve, environment.get("TUNELOOP_PRICES"))
    drain = serve.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = int(environment["TUNELOOP_SHUTDOWN_GRACE_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] > drain + grace, f"{values_file}: killed before it may end"
    mounts, volumes = ({each["name"] for each in some} for some in (serve["volumeMounts"], pod["volumes"]))
    assert mounts == volumes, f"{values_file}: mounts {mounts} are not the volumes {volumes}"


def check_targets(values_file, serve, environment):
    """What users may name is as the values say: public addresses unless allowed, files on the volume, secrets from the Secret."""
    values = yaml.safe_load(values_file.read_text())
    config, publication = values.get("config", {}), values.get("publication", {})
    assert environment.get("TUNELOOP_PUBLIC_URL") == config.get("publicUrl"), f"{values_file}: another public URL"
    allowed = "true" if config.get("allowPrivateTargets") else None
    assert environment.get("TUNELOOP_ALLOW_PRIVATE_TARGETS") == allowed, f"{values_file}: other addresses are allowed"
    mounts = {each["name"]: each for each in serve["volumeMounts"]}
    place = mounts.get("publication", {}).get("mountPath")
    assert environment.get("TUNELOOP_PUBLICATION_DIR") == place, f"{values_file}: files are not on their volume"
    assert (place is not None) == publication.get("files", {}).get("enabled", False), f"{values_file}: no volume of files"
    signing = publication.get("signing", {})
    expected = {key: (signing["existingSecret"], key) for key in signing.get("keys", ())}
    references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in serve["env"]
                  if each["name"].startswith("PUBLICATION_SECRET_")}
    found = {name: (each["name"], each["key"]) for name, each in references.items()}
    assert found == expected, f"{values_file}: signing secrets are {found}, not {expected}"


def check_role(values_file, by_kind):
    """The Role allows the calls that tests/publication sees the service make, and no others."""
    settings = yaml.safe_load(values_file.read_text()).get("publication", {}).get("configMaps", {})
    enabled = settings.get("enabled", False)
    mounted = by_kind["Deployment"]["spec"]["template"]["spec"]["automountServiceAccountToken"]
    assert enabled == mounted == ("Role" in by_kind) == ("RoleBinding" in by_kind), f"{values_file}: half a Role"
    if not enabled:
        return
    role, binding = by_kind["Role"], by_kind["RoleBinding"]
    allowed = {(verb, resource): tuple(rule.get("resourceNames", ())) for rule in role["rules"]
               for resource in rule["resources"] for verb in rule["verbs"]}
    named, deployments = tuple(settings.get("names", ())), tuple(settings.get("deployments", ()))
    expected = {("get", "configmaps"): named, ("patch", "configmaps"): named, ("create", "configmaps"): ()}
    if deployments:
        expected[("patch", "deployments")] = deployments
    assert allowed == expected, f"{values_file}: the Role allows {allowed}, not {expected}"
    namespaces = {each["metadata"]["namespace"] for each in (role, binding)}
    assert namespaces == {settings.get("namespace") or NAMESPACE}, f"{values_file}: {namespaces}"
    account = by_kind["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    assert binding["subjects"] == [subject], f"{values_file}: the Role is bound to {binding['subjects']}"
    assert binding["roleRef"]["name"] == role["metadata"]["name"], f"{values_file}: another Role is bound"


def check_prices(values_file, by_kind, serve, place):
    """The variable names the file that the ConfigMap's table is mounted as."""
    prices = yaml.safe_load(values_file.read_text()).get("prices")
    assert bool(prices) == (place is not None) == ("ConfigMap" in by_kind), f"{values_file}: prices are half there"
    if prices:
        mount = next(each for each in serve["volumeMounts"] if each["name"] == "prices")
        file = place.removeprefix(mount["mountPath"] + "/")
        assert json.loads(by_kind["ConfigMap"]["data"][file]) == prices, f"{values_file}: other prices"


def check_refusals(chart):
    """Values that must be refused are, by both Helms, with a message that names the place."""
    minimal = yaml.safe_load((chart / "ci/minimal.yaml").read_text())
    for over, words in REFUSED:
        values = merged(minimal, over)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            status, output = render_old(chart, file.name, KUBERNETES_VERSIONS[-1])
        assert status != 0 and words in output, f"the old Helm on {over}: {output}"
        try:
            render_new(chart, values)
        except helm_python.errors.HelmError as error:
            assert words in str(error), f"the new Helm on {over}: {error}"
        else:
            raise AssertionError(f"the new Helm accepts {over}")


def main(chart, output):
    """Runs every check."""
    cargo = re.search(r'^version = "(.+)"', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert metadata["appVersion"] == cargo, f"Chart.yaml has appVersion {metadata['appVersion']}, Cargo.toml {cargo}"

    check_lint(chart, None, {})
    values_files = sorted((chart / "ci").glob("*.yaml"))
    for values_file in values_files:
        values = yaml.safe_load(values_file.read_text())
        check_lint(chart, values_file, values)
        for kubernetes in KUBERNETES_VERSIONS:
            status, text = render_old(chart, values_file, kubernetes)
            assert status == 0, text
            directory = output / kubernetes
            directory.mkdir(exist_ok=True)
            (directory / values_file.name).write_text(text)
        by_kind = objects(text)
        assert by_kind == objects(render_new(chart, values)), f"{values_file}: the two Helms differ"
        check_pods(values_file, by_kind)
        check_role(values_file, by_kind)
    check_refusals(chart)
    print(f"chart: {len(values_files)} sets of values rendered, {len(REFUSED)} refused, by two versions of Helm")


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    except AssertionError as error:
        sys.exit(f"chart.py: {error}")
