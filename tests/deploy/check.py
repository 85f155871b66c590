"""Checks what is in deploy/, and that it says what the host understands.

Helm itself renders the chart; every manifest is validated against the schemas of Kubernetes, the
compose file against that of Compose, the Dockerfile by hadolint; promtool and systemd-analyze take
part where they are installed.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import helm_python
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "stead"
VALUES = ROOT / "tests" / "deploy" / "values"
# The oldest that the chart allows, and the newest that is known.
KUBERNETES = ("1.30.0", kubernetes_validate.latest_version())
PEER = 7834


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def loaded(path):
    return yaml.safe_load(text(path))


def settings():
    """The variables that `stead serve` reads, from the table in its source."""
    found = set(re.findall(r"STEAD_[A-Z_]+", text("host/src/words/config.rs")))
    return found | set(re.findall(r'env = "(STEAD_[A-Z_]+)"', text("host/src/cli/args.rs")))


def metrics():
    """The names that a scrape may show, from where the host registers them."""
    source = re.sub(r"\s+", " ", text("host/src/words/telemetry.rs"))
    fields = dict(re.findall(r"pub (\w+): (?:Family<\w+, )?(\w+)", source))
    names = set()
    for unit, name, rest in re.findall(r'register(_with_unit)?\( ?"(\w+)",(.*?)\);', source):
        field = re.search(r"\bm\.(\w+)", rest)
        kind = fields[field.group(1)]
        name = f"stead_{name}" + ("_seconds" if unit else "")
        endings = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
        names.update(name + ending for ending in endings[kind])
    return names


def render(values):
    with helm_python.Chart.load(str(CHART)) as chart:
        rendered = chart.render(values, name="demo", namespace="prod")
    return {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for path, source in rendered.items()
        if path.endswith(".yaml")
        for manifest in yaml.safe_load_all(source)
        if manifest
    }


def only(manifests, kind):
    found = [manifest for (of, _), manifest in manifests.items() if of == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]


def environment(container):
    return {variable["name"]: variable for variable in container["env"]}


class Chart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.defaults = render({})
        cls.sets = {"defaults": cls.defaults}
        for path in sorted(VALUES.glob("*.yaml")):
            cls.sets[path.stem] = render(yaml.safe_load(path.read_text(encoding="utf-8")))

    def test_helm_finds_nothing_to_say(self):
        said = helm_python.lint(str(CHART), strict=True)
        told = [message for message in said["messages"] if message["severity"] > 1]
        self.assertEqual((told, said["errors"]), ([], []))

    def test_every_manifest_is_valid_for_the_oldest_and_the_newest_kubernetes(self):
        for name, manifests in self.sets.items():
            for (kind, _), manifest in manifests.items():
                if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
                    continue
                for version in KUBERNETES:
                    with self.subTest(values=name, kind=kind, version=version):
                        kubernetes_validate.validate(manifest, version, strict=True)

    def test_names_fit(self):
        for name, manifests in self.sets.items():
            for kind, named in manifests:
                with self.subTest(values=name, kind=kind):
                    self.assertRegex(named, r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")

    def test_values_that_cannot_be_meant_are_refused(self):
        for wrong in (
            {"replica": 3},
            {"shards": 0},
            {"capacity": "100"},
            {"hot": {"memory": "a lot"}},
            {"ipFamily": "IPv5"},
            {"zone": "two words"},
            {"secrets": {"store": {"name": ""}}},
            {"shutdown": {"gracePeriodSeconds": 5}},
            {"cors": {"allowedOrigins": ["shop.example"]}},
        ):
            with self.subTest(values=wrong), self.assertRaises(helm_python.HelmError):
                render(wrong)

    def test_selectors_select_the_pods(self):
        for name, manifests in self.sets.items():
            deployment = only(manifests, "Deployment")
            labels = deployment["spec"]["template"]["metadata"]["labels"].items()
            for (kind, _), manifest in manifests.items():
                spec = manifest.get("spec", {})
                selector = {
                    "Service": lambda: spec["selector"],
                    "Deployment": lambda: spec["selector"]["matchLabels"],
                    "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
                    "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
                }.get(kind, dict)()
                with self.subTest(values=name, kind=kind):
                    self.assertLessEqual(selector.items(), labels)

    def test_a_service_monitor_finds_one_service_and_brings_the_token(self):
        manifests = self.sets["everything"]
        monitor = only(manifests, "ServiceMonitor")["spec"]
        wanted = monitor["selector"]["matchLabels"].items()
        found = [
            manifest
            for (kind, _), manifest in manifests.items()
            if kind == "Service" and wanted <= manifest["metadata"]["labels"].items()
        ]
        self.assertEqual([service["metadata"]["name"] for service in found], ["demo-stead-admin"])
        self.assertEqual(monitor["endpoints"][0]["port"], found[0]["spec"]["ports"][0]["name"])
        self.assertEqual(
            monitor["endpoints"][0]["authorization"]["credentials"],
            {"name": "stead", "key": "admin-token"},
        )
        self.assertEqual(
            only(manifests, "PrometheusRule")["spec"], loaded("deploy/prometheus/alerts.yaml")
        )

    def test_pods_find_each_other(self):
        for name, manifests in self.sets.items():
            pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
            given = environment(pod["containers"][0])
            order = list(given)
            host, port = given["STEAD_JOIN"]["value"].rsplit(":", 1)
            service = manifests["Service", host.split(".")[0]]["spec"]
            with self.subTest(values=name):
                self.assertEqual(int(port), PEER)
                self.assertEqual(service["clusterIP"], "None")
                self.assertIs(service["publishNotReadyAddresses"], True)
                self.assertEqual(
                    {(port["port"], port["protocol"]) for port in service["ports"]},
                    {(PEER, "TCP"), (PEER, "UDP")},
                )
                # A variable can name only those before it.
                self.assertLess(order.index("POD_IP"), order.index("STEAD_ADVERTISE"))
                self.assertIn("$(POD_IP)", given["STEAD_ADVERTISE"]["value"])
        least = environment(
            only(self.sets["least"], "Deployment")["spec"]["template"]["spec"]["containers"][0]
        )
        self.assertEqual(least["STEAD_ADVERTISE"]["value"], "[$(POD_IP)]:7834")
        self.assertEqual(least["STEAD_PEER"]["value"], "[::]:7834")

    def test_pods_have_no_rights(self):
        for name, manifests in self.sets.items():
            pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
            with self.subTest(values=name):
                self.assertIs(pod["automountServiceAccountToken"], False)
                self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
                for container in pod["containers"]:
                    context = container["securityContext"]
                    self.assertIs(context["readOnlyRootFilesystem"], True)
                    self.assertIs(context["allowPrivilegeEscalation"], False)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
                self.assertEqual(mounts, {volume["name"] for volume in pod["volumes"]})

    def test_an_update_never_has_fewer_nodes(self):
        for name, manifests in self.sets.items():
            spec = only(manifests, "Deployment")["spec"]
            pod = spec["template"]["spec"]
            container = pod["containers"][0]
            before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            with self.subTest(values=name):
                self.assertEqual(
                    spec["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1}
                )
                self.assertGreater(pod["terminationGracePeriodSeconds"], before + 20)
                probes = {
                    probe: container[f"{probe}Probe"]["httpGet"]["path"]
                    for probe in ("startup", "readiness", "liveness")
                }
                self.assertEqual(
                    probes, {"startup": "/live", "readiness": "/ready", "liveness": "/live"}
                )

    def test_the_peer_port_is_for_peers(self):
        deployment = only(self.defaults, "Deployment")["spec"]
        listens = {
            (port["name"], port["protocol"])
            for port in deployment["template"]["spec"]["containers"][0]["ports"]
        }
        opened = set()
        for rule in only(self.defaults, "NetworkPolicy")["spec"]["ingress"]:
            ports = {(port["port"], port["protocol"]) for port in rule["ports"]}
            opened |= ports
            if ports & {("peers", "TCP"), ("gossip", "UDP")}:
                self.assertEqual(len(ports), 2)
                self.assertEqual(rule["from"], [{"podSelector": deployment["selector"]}])
        self.assertEqual(opened, listens)

    def test_the_version_is_that_of_the_host(self):
        version = re.search(r'^version = "(.+)"$', text("Cargo.toml"), re.M).group(1)
        self.assertEqual(loaded("deploy/helm/stead/Chart.yaml")["appVersion"], version)
        for file in ("deploy/compose.yaml", "deploy/Dockerfile", "deploy/README.md"):
            self.assertEqual(set(re.findall(r"stead:(\d+\.\d+\.\d+)", text(file))), {version}, file)


class Files(unittest.TestCase):
    def run_tool(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def tool(self, name):
        path = shutil.which(name)
        if path is None:
            self.skipTest(f"{name} is not installed")
        return path

    def test_the_compose_file_is_valid(self):
        checker = str(pathlib.Path(sys.executable).with_name("check-jsonschema"))
        file = str(DEPLOY / "compose.yaml")
        self.run_tool(checker, "--builtin-schema", "vendor.compose-spec", file)

    def test_every_node_of_the_compose_file_has_its_own_address(self):
        compose = loaded("deploy/compose.yaml")
        nodes = {
            name: service
            for name, service in compose["services"].items()
            if name.startswith("node")
        }
        self.assertEqual(len(nodes), 3)
        ports = []
        for name, node in nodes.items():
            address = node["networks"]["stead"]["ipv4_address"]
            self.assertEqual(node["environment"]["STEAD_PEER"], f"{address}:{PEER}", name)
            alias = node["environment"]["STEAD_JOIN"].split(":")[0]
            self.assertIn(alias, node["networks"]["stead"]["aliases"], name)
            ports += [port.rsplit(":", 1)[0] for port in node["ports"]]
        self.assertEqual(len(ports), len(set(ports)))
        wanted = set(re.findall(r"\$\{(\w+)", text("deploy/compose.yaml")))
        given = set(re.findall(r"^(\w+)=", text("deploy/compose.env.example"), re.M))
        self.assertEqual(wanted, given)

    def test_hadolint_accepts_the_dockerfile(self):
        self.run_tool(
            str(pathlib.Path(sys.executable).with_name("hadolint")), str(DEPLOY / "Dockerfile")
        )

    def test_the_image_is_built_with_the_toolchain_of_the_repository(self):
        channel = re.search(r'channel = "(.+)"', text("rust-toolchain.toml")).group(1)
        dockerfile = text("deploy/Dockerfile")
        self.assertIn(f"FROM rust:{channel}-", dockerfile)
        self.assertIn(f"RUSTUP_TOOLCHAIN={channel}\n", dockerfile)

    def test_the_image_is_built_from_all_members_of_the_workspace(self):
        kept = set(re.findall(r"^!(.+)$", text("deploy/Dockerfile.dockerignore"), re.M))
        members = re.search(r"members = \[(.+?)\]", text("Cargo.toml"), re.S).group(1)
        for member in re.findall(r'"(.+?)"', members):
            self.assertIn(member.split("/")[0], kept)

    def test_systemd_accepts_the_unit(self):
        analyze = self.tool("systemd-analyze")
        unit = text("deploy/systemd/stead.service")
        self.assertNotIn("\nMemoryDenyWriteExecute=", unit)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "stead.service"
            # It also looks whether the program is there.
            path.write_text(unit.replace("/usr/local/bin/stead", "/bin/true"), encoding="utf-8")
            said = self.run_tool(analyze, "verify", "--man=no", str(path))
            self.assertNotIn("stead.service", said)

    def test_prometheus_accepts_the_alerts(self):
        promtool = self.tool("promtool")
        self.run_tool(promtool, "check", "rules", str(DEPLOY / "prometheus/alerts.yaml"))
        self.run_tool(promtool, "test", "rules", str(ROOT / "tests/deploy/alerts.test.yaml"))

    def test_alerts_name_metrics_of_the_host_and_chapters_of_the_manual(self):
        known = metrics()
        manual = text("docs/operations.md")
        self.assertIn("stead_commit_seconds_bucket", known)
        for group in loaded("deploy/prometheus/alerts.yaml")["groups"]:
            for rule in group["rules"]:
                with self.subTest(alert=rule["alert"]):
                    self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
                    unknown = set(re.findall(r"stead_\w+", rule["expr"])) - known
                    self.assertEqual(unknown, set(), "the host has no such metric")
                    chapter = re.search(r'"(.+)"', rule["annotations"]["description"]).group(1)
                    self.assertRegex(manual, rf"(?m)^#+ {re.escape(chapter)}$")
                    self.assertIn(rule["alert"], manual)

    def test_settings_are_those_of_the_host(self):
        known = settings()
        for path in sorted(DEPLOY.rglob("*")) + [ROOT / "docs/operations.md"]:
            if path.is_file():
                named = set(re.findall(r"STEAD_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8")))
                self.assertEqual(named - known, set(), f"{path} names settings that nobody reads")

    def test_the_manual_names_every_setting_and_every_metric(self):
        manual = text("docs/operations.md")
        table = set(re.findall(r"`(STEAD_[A-Z_]+)`", text("host/src/words/config.rs")))
        silent = sorted(name for name in table if name not in manual)
        bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics()}
        silent += sorted(name for name in bare if f"`{name}" not in manual)
        self.assertEqual(silent, [], "docs/operations.md says nothing of these")

    def test_log_lines_of_the_manual_are_those_of_the_host(self):
        source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("host/src/**/*.rs"))
        manual = text("docs/operations.md")
        rows = re.findall(r'(?m)^\| `(.+)` \| "(.+)" \|$', manual)
        self.assertGreater(len(rows), 5)
        for line, chapter in rows:
            with self.subTest(line=line):
                self.assertIn(f'"{line}"', source)
                self.assertRegex(manual, rf"(?m)^#+ {re.escape(chapter)}$")

    def test_json_schemas_are_schemas(self):
        import jsonschema

        schema = json.loads(text("deploy/helm/stead/values.schema.json"))
        jsonschema.validators.validator_for(schema).check_schema(schema)


if __name__ == "__main__":
    unittest.main()
