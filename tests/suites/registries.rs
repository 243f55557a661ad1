//! Registries that an administrator lists: those are reached, by whatever the engine fetches, and nothing else is, by whatever way.
//!
//! Elsewhere: what an entry of the list covers is unit tests of `eci_policy::rules::registry`, how requests are read those of `eci-egress`.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_contract::audit::Denial;
use eci_tests::attempts;
use eci_tests::built::Built;
use eci_tests::command::{self, Outcome};
use eci_tests::registry::Registry;
use eci_tests::suite::{self, Row, row, thorough_row};
use eci_tests::vm::Vm;
use eci_tests::web::Web;
use eci_tests::workbench::Workbench;
use serde_json::{Value, json};

/// Name of the instance.
const NAME: &str = "registries";
/// How long a script in the VM may take.
const SOON: Duration = Duration::from_secs(60);
/// What the servers of files have.
const FILE: &[u8] = b"from a server\n";

/// A machine of the test flavour whose engine may reach one registry on the host by two names, one server of files, and its own loopback.
struct Listed {
    bench: Workbench,
    registry: Registry,
    /// A registry that is not on the list.
    other: Registry,
    files: Web,
    /// A server of files that is not on the list.
    elsewhere: Web,
    proxy: Web,
    allowed: Vec<String>,
    _built: Built,
}

fn main() -> ExitCode {
    match boot() {
        Ok(listed) => suite::run(listed, rows(), |listed| listed.vm().last_words()),
        Err(error) => {
            eprintln!("the image with a list of registries does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Listed> {
    let (registry, other) = (Registry::start()?, Registry::start()?);
    let (files, elsewhere) = (Web::of_file(FILE)?, Web::of_file(FILE)?);
    let proxy = Web::of_proxy(registry.address())?;
    let by_name = "registry.example.com:5000";
    let allowed = vec![
        registry.name(),
        files.name(),
        by_name.to_owned(),
        "*.team.example.com:5000".to_owned(),
        "localhost:5000".to_owned(),
    ];
    let insecure = [
        registry.name(),
        other.name(),
        by_name.to_owned(),
        "registry.example.com:5001".to_owned(),
        "a.team.example.com:5000".to_owned(),
        "team.example.com:5000".to_owned(),
    ];
    // Names that a resolver in a container has, see `names`.
    let direct = registry.name().replacen("10.0.2.2", "direct.example.net", 1);
    let inside = "inside.example.net:5000";
    let allowed = [allowed, vec![direct.clone(), inside.to_owned()]].concat();
    let insecure = [&insecure[..], &[direct, inside.to_owned()]].concat();
    let by_proxy = format!("http://{}", proxy.name());
    let settings = json!({
        "configurationFileVersion": 2,
        "eci": {
            "registryAccess": { "allowed": allowed },
            "engine": {
                "insecure-registries": insecure,
                "proxies": { "http-proxy": by_proxy, "https-proxy": by_proxy, "no-proxy": "10.0.2.2,example.net" }
            }
        }
    });
    let built = Built::flavour(&settings.to_string())?;
    let bench = Workbench::over(Vm::start(NAME, &built.out())?)?;
    Ok(Listed { bench, registry, other, files, elsewhere, proxy, allowed, _built: built })
}

fn rows() -> Vec<Row<Listed>> {
    vec![
        row("a_registry_on_the_list_takes_images_and_gives_them", |listed| {
            let image = format!("{}/made:1", listed.registry.name());
            listed.push_and_pull(&image)?;
            let said = listed.vm().docker(&["run", "--rm", &image, "echo", "it runs"])?.ok()?;
            ensure!(said == "it runs", "{said}");
            ensure!(listed.proxy.asked().is_empty(), "the company's proxy was asked");
            Ok(())
        }),
        row("by_name_it_is_reached_through_the_company_s_proxy", |listed| {
            for host in ["registry.example.com:5000", "a.team.example.com:5000"] {
                listed.push_and_pull(&format!("{host}/named:1"))?;
                let asked = listed.proxy.asked();
                let gets = format!("GET http://{host}/v2/");
                ensure!(asked.iter().any(|line| line.starts_with(&gets)), "{asked:#?}");
            }
            Ok(())
        }),
        row("what_is_one_off_is_refused_before_anybody_is_asked", |listed| {
            for host in [
                listed.other.name().as_str(),
                "registry.example.com:5001",
                "registry.example.com",
                "registry.example.org:5000",
                "team.example.com:5000",
                "10.0.2.3:5000",
                "[fd00::2]:5000",
                "[::ffff:a00:202]:5000",
                "docker.io",
            ] {
                // Written so, an address is told as it is read.
                let shown = if host == "[::ffff:a00:202]:5000" { "10.0.2.2:5000" } else { host };
                listed.refused(shown, &["pull", &format!("{host}/made:1")])?;
            }
            let asked = listed.proxy.asked();
            ensure!(asked.is_empty(), "{asked:#?}");
            Ok(())
        }),
        row("pushes_logins_searches_and_plugins_are_refused_as_pulls_are", |listed| {
            let (vm, other) = (listed.vm(), listed.other.name());
            let image = format!("{other}/made:1");
            vm.docker(&["tag", "busybox", &image])?.ok()?;
            listed.refused(&other, &["push", &image])?;
            listed.refused(&other, &["login", "-u", "somebody", "-p", "secret", &other])?;
            listed.refused(&other, &["run", "--rm", "--pull", "always", &image, "true"])?;
            listed.refused(
                &other,
                &["plugin", "install", "--grant-all-permissions", &format!("{other}/plugin:1")],
            )?;
            listed.refused("docker.io", &["search", "busybox"])?;
            listed.refused("docker.io", &["login", "-u", "somebody", "-p", "secret"])?;
            vm.docker(&["rmi", &image])?.ok().map(drop)
        }),
        row("builds_fetch_from_the_list_alone", |listed| {
            let made = format!("{}/made:1", listed.registry.name());
            let add =
                |web: &Web| format!("FROM {made}\nADD http://{}/file /file\nRUN cat /file\n", web.name());
            for builder in ["0", "1"] {
                listed.build(builder, &add(&listed.files))?.ok()?;
                let from = format!("FROM {}/made:1\n", listed.other.name());
                let refused = listed.build(builder, &from)?;
                listed.is_refused(refused, &listed.other.name())?;
                let refused = listed.build(
                    builder,
                    &format!("FROM {made}\nADD https://{}/file /file\n", listed.elsewhere.name()),
                )?;
                listed.is_refused(refused, &listed.elsewhere.name())?;
                // The clear answer of a web server, whose words BuildKit does not show.
                listed.build(builder, &add(&listed.elsewhere))?.refused(&["403"])?;
            }
            let asked = listed.elsewhere.asked();
            ensure!(asked.is_empty(), "{asked:#?}");
            Ok(())
        }),
        row("what_is_imported_comes_from_the_list_and_redirects_lead_nowhere_else", |listed| {
            let url = |web: &Web, path: &str| format!("http://{}{path}", web.name());
            let away = |to: &str| url(&listed.files, &format!("/away?{to}"));
            drop(listed.files.asked());
            // No archive: what the server has arrives, and is none.
            listed.vm().docker(&["import", &url(&listed.files, "/file"), "imported"])?.refused(&[""])?;
            ensure!(listed.files.asked().len() == 1, "the server on the list was not asked");
            let there = url(&listed.elsewhere, "/file");
            let secure = format!("https://{}/file", listed.elsewhere.name());
            listed.vm().docker(&["import", &there, "imported"])?.refused(&["403"])?;
            let refused = listed.vm().docker(&["import", &secure, "imported"])?;
            listed.is_refused(refused, &listed.elsewhere.name())?;
            let refused = listed.vm().docker(&["import", &away(&secure), "imported"])?;
            listed.is_refused(refused, &listed.elsewhere.name())?;
            let steps = format!("FROM busybox\nADD {} /file\n", away(&secure));
            let refused = listed.build("1", &steps)?;
            listed.is_refused(refused, &listed.elsewhere.name())?;
            let asked = listed.elsewhere.asked();
            ensure!(asked.is_empty(), "{asked:#?}");
            Ok(())
        }),
        row("the_vm_s_own_loopback_is_reached_where_it_is_listed", |listed| {
            let serve = "mkdir -p /tmp/web/v2 && echo '{}' >/tmp/web/v2/index.html && httpd -p 127.0.0.1:5000 -h /tmp/web && \
                         httpd -p 127.0.0.1:5001 -h /tmp/web";
            listed.bench.run(serve, SOON)?;
            let there = listed.vm().docker(&["pull", "localhost:5000/made:1"])?;
            ensure!(there.code != 0 && !there.stderr.contains("not permitted"), "{}", there.stderr);
            there.refused(&["404 Not Found"])?;
            listed.refused("localhost:5001", &["pull", "localhost:5001/made:1"])?;
            listed.refused("127.0.0.1:3128", &["pull", "127.0.0.1:3128/made:1"])?;
            listed.bench.run("killall httpd", SOON).map(drop)
        }),
        row("who_is_in_the_engine_s_cgroup_speaks_to_the_one_program_alone", cgroups),
        row("containers_names_ports_and_network_are_as_ever", containers),
        row("a_name_is_looked_up_and_leads_to_nothing_of_the_vm_s", names),
        row("what_was_refused_is_in_the_audit_log", |listed| {
            let log = listed.vm().builder(&["audit", "--name", NAME, "--json"])?.ok()?;
            let denials: Result<Vec<Denial>, _> = log.lines().map(serde_json::from_str).collect();
            let denials = denials?;
            let message = format!("registry access to {} is not allowed", listed.other.name());
            // A pull, which the gate tells of, and a build's, which it does not know.
            for (by, action) in [
                ("eci-gate", "POST /v1.45/images/create"),
                ("eci-egress", &format!("CONNECT {}", listed.other.name())),
            ] {
                let is_it = |denial: &&Denial| denial.by == by && denial.message == message;
                let denial =
                    denials.iter().find(is_it).with_context(|| format!("no line of {by}'s in\n{log}"))?;
                let found = (denial.action.as_str(), denial.rule.as_str(), denial.container.as_str());
                ensure!(found == (action, "registry-access", "engine"), "{denial:#?}");
                ensure!(denial.remedy.contains("`eci.registryAccess.allowed`"), "{denial:#?}");
            }
            Ok(())
        }),
        row("status_tells_of_the_list_and_every_promise_holds", |listed| {
            let status = listed.vm().status()?;
            ensure!(status["settings"]["registries"] == json!(listed.allowed), "{}", status["settings"]);
            let services = status["services"].as_array().context("services")?;
            let egress = services.iter().find(|service| service["name"] == "egress").context("no service")?;
            ensure!(egress["state"] == "ready" && egress["restarts"] == 0, "{egress}");
            let info: Value =
                serde_json::from_str(&listed.vm().docker(&["info", "--format", "{{json .}}"])?.ok()?)?;
            ensure!(
                info["HttpProxy"] == "http://127.0.0.1:3128" && info["HttpsProxy"] == info["HttpProxy"],
                "{info}"
            );
            listed.vm().every_check_holds()
        }),
        // The last one: until the next boot nobody is where the way out was.
        thorough_row("a_swarm_s_mesh_does_not_take_the_place_of_the_way_out", |listed| {
            let vm = listed.vm();
            vm.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"])?.ok()?;
            let answers = "while :; do printf 'HTTP/1.1 200 OK\\r\\n\\r\\n' | nc -l -p 3128; done";
            let publish = ["service", "create", "--quiet", "--publish", "published=3128,target=3128"];
            vm.docker(&[&publish[..], &["busybox", "sh", "-c", answers]].concat())?.ok()?;
            let outcome = listed.build("1", &format!("FROM {}/made:1\n", listed.other.name()))?;
            ensure!(outcome.code != 0, "an image came from elsewhere: {}", outcome.stderr);
            // The mesh led the connection to the service, and the firewall did not let it go there.
            let rules = listed.bench.run("iptables -w -nvxL OUTPUT", SOON)?;
            let rule = rules.lines().find(|line| line.contains("ctorigdst 127.0.0.0/8"));
            let packets = rule.and_then(|rule| rule.split_whitespace().next()?.parse::<u64>().ok());
            ensure!(packets.is_some_and(|packets| packets > 0), "{rules}");
            Ok(())
        }),
    ]
}

impl Listed {
    fn vm(&self) -> &Vm {
        &self.bench.vm
    }

    fn push_and_pull(&self, image: &str) -> Result<()> {
        let vm = self.vm();
        vm.docker(&["tag", "busybox", image])?.ok()?;
        vm.docker(&["push", image])?.ok()?;
        vm.docker(&["rmi", image])?.ok()?;
        vm.docker(&["pull", image])?.ok().map(drop)
    }

    fn refused(&self, registry: &str, arguments: &[&str]) -> Result<()> {
        self.is_refused(self.vm().docker(arguments)?, registry)
    }

    fn is_refused(&self, outcome: Outcome, registry: &str) -> Result<()> {
        outcome.refused(&[&format!("registry access to {registry} is not allowed")]).map(drop)
    }

    fn build(&self, builder: &str, steps: &str) -> Result<Outcome> {
        let mut command = self.vm().docker_command();
        command.env("DOCKER_BUILDKIT", builder).args(["build", "--no-cache", "-"]);
        command::run(&mut command, steps.as_bytes())
    }
}

/// Attempts of a process of the VM: the same ones in the engine's cgroup, in containerd's, and in none of both.
fn cgroups(listed: &Listed) -> Result<()> {
    let registry = listed.registry.name();
    let permitted = [
        "dial:127.0.0.1:3128",
        "dial-datagrams:10.0.2.3:53",
        "send-datagram:10.0.2.3:53",
        "send-datagram:127.0.0.1:9",
    ];
    // Whoever the list has, the engine does not speak to them by itself.
    let refused: Vec<String> = [
        &format!("dial:{registry}"),
        &format!("dial-at-once:{registry}"),
        "dial:127.0.0.1:3129",
        "dial:127.0.0.2:3128",
        "dial:[::1]:3128",
        "dial:[::ffff:127.0.0.1]:3128",
        &format!("dial:[::ffff:10.0.2.2]:{}", registry.rsplit(':').next().unwrap_or_default()),
        "dial:[fd00::2]:443",
        "dial-datagrams:10.0.2.2:443",
        "dial-datagrams:127.0.0.1:3128",
        "send-datagram:10.0.2.2:443",
        "send-datagram:[::ffff:10.0.2.2]:443",
        "send-datagram:[fd00::2]:443",
    ]
    .map(str::to_owned)
    .to_vec();
    let probe = "/var/lib/docker/volumes/workbench/_data/probe";
    listed
        .vm()
        .docker(&["run", "--rm", "-v", "workbench:/bench", "busybox", "cp", "/probe", "/bench/probe"])?
        .ok()?;
    let attempt = |cgroup: &str| -> Result<attempts::Outcomes> {
        let verbs: Vec<_> = permitted.iter().map(|verb| (*verb).to_owned()).chain(refused.clone()).collect();
        let script =
            format!("echo $$ >/sys/fs/cgroup/{cgroup}/cgroup.procs && exec {probe} {}", verbs.join(" "));
        let text = listed.bench.run(&script, SOON * 2)?;
        let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
        Ok(lines.map(|(verb, outcome)| (verb.to_owned(), outcome.to_owned())).collect())
    };
    for cgroup in ["eci/engine", "eci/containerd"] {
        let outcomes = attempt(cgroup)?;
        for verb in permitted {
            let outcome = outcomes.get(verb).map(String::as_str);
            ensure!(outcome == Some("allowed"), "{cgroup}: {verb} is {outcome:?}");
        }
        for verb in &refused {
            let outcome = outcomes.get(verb).map(String::as_str);
            ensure!(outcome == Some("EPERM"), "{cgroup}: {verb} is {outcome:?}");
        }
    }
    let outcomes = attempt("eci/workbench")?;
    let still_refused: Vec<_> = outcomes.iter().filter(|(_, outcome)| *outcome == "EPERM").collect();
    ensure!(still_refused.is_empty(), "without the cgroup: {still_refused:?}");
    let dialled = outcomes.get(&format!("dial:{registry}")).map(String::as_str);
    ensure!(dialled == Some("allowed"), "without the cgroup the registry is {dialled:?}");
    Ok(())
}

/// Names by the engine's resolver, a published port, and a network without a list.
fn containers(listed: &Listed) -> Result<()> {
    let vm = listed.vm();
    vm.docker(&["network", "create", "--subnet", "172.30.0.0/24", "named"])?.ok()?;
    // A resolver of containers' own, in a container.
    let resolver =
        "resolver:www.example.com=192.0.2.80,direct.example.net=10.0.2.2,inside.example.net=127.0.0.1";
    let at = ["--network", "named", "--ip", "172.30.0.53"];
    let served = [&["run", "-d", "--name", "resolver"], &at[..], &["busybox", "/probe", resolver]].concat();
    vm.docker(&served)?.ok()?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let published = format!("{port}:80");
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "echo",
        "--network",
        "named",
        "-p",
        &published,
        "busybox",
        "/probe",
        "tcp-echo:80",
    ])?
    .ok()?;
    let asked = vm.sh(
        &["--network", "named", "--dns", "172.30.0.53"],
        "busybox nslookup resolver && busybox nslookup www.example.com",
    )?;
    ensure!(asked.contains("172.30.0.53") && asked.contains("192.0.2.80"), "{asked}");
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    std::io::Write::write_all(&mut stream, b"ping")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = String::new();
    std::io::Read::read_to_string(&mut stream, &mut back)?;
    ensure!(back == "ping", "the published port gave {back:?}");
    // A container is not the engine.
    let get = format!("busybox wget -q -O - http://{}/file", listed.elsewhere.name());
    ensure!(vm.sh(&[], &get)?.as_bytes() == FILE.trim_ascii_end());
    for builder in ["0", "1"] {
        listed.build(builder, &format!("FROM busybox\nRUN {get}\n"))?.ok()?;
    }
    vm.docker(&["rm", "-f", "echo"])?.ok().map(drop)
}

/// With that container as the VM's own resolver.
fn names(listed: &Listed) -> Result<()> {
    let script =
        "cp /run/eci/resolv.conf /tmp/resolv.conf && echo 'nameserver 172.30.0.53' >/run/eci/resolv.conf";
    listed.bench.run(script, SOON)?;
    let direct = listed.registry.name().replacen("10.0.2.2", "direct.example.net", 1);
    listed.push_and_pull(&format!("{direct}/made:2"))?;
    ensure!(listed.proxy.asked().is_empty(), "the company's proxy was asked");
    let told = "inside.example.net has the address 127.0.0.1, which is the VM itself";
    listed.vm().docker(&["pull", "inside.example.net:5000/made:1"])?.refused(&[told])?;
    listed.bench.run("cp /tmp/resolv.conf /run/eci/resolv.conf", SOON)?;
    listed.vm().docker(&["rm", "-f", "resolver"])?.ok().map(drop)
}
