//! The dashboard as a browser shows it: what it tells of a running instance, that all of it is text, and who gets none of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;
use eci_tests::{command, image};

/// Name of the container that runs: as near to a script as Docker lets one be.
const NAME: &str = "script.alert_1--";
/// Its image.
const IMAGE: &str = "onerror__alert.1/script:_.-onload--alert.1_-";
/// What a browser would act on if it took text for markup.
const MARKUP: &str = "<img src=x onerror=\"document.title='owned'\">";
/// Milliseconds of a browser's own time in which the page asks once: it does so at once, and then every two seconds.
const ONE_ROUND: u32 = 1000;
/// In which it asks more than once, as figures over time need.
const ROUNDS: u32 = 5000;

fn main() -> ExitCode {
    match Shown::start() {
        Ok(shown) => suite::run(shown, rows(), |shown| format!("{}\n{}", shown.vm.last_words(), shown.dom)),
        Err(error) => {
            eprintln!("there is no page: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> Vec<Row<Shown>> {
    vec![
        row("state_image_and_root_hash_are_on_the_page", |shown| {
            shown.has("<p id=\"state\" role=\"status\" class=\"good\">Ready</p>")?;
            shown.has("<title>Ready – dashboard</title>")?;
            let status = shown.vm.status()?;
            let of_image = |key: &str| status["image"][key].as_str().unwrap_or_default().to_owned();
            let hash = of_image("root_hash");
            ensure!(hash.len() == 64, "{status}");
            shown.has(&format!("<code>{hash}</code>"))?;
            shown.has(&format!("eci {}, slot {}", of_image("version"), of_image("slot")))
        }),
        row("each_promise_is_there_with_its_verdict", |shown| {
            let status = shown.vm.status()?;
            let checks = status["checks"].as_array().context("checks")?;
            ensure!(checks.len() >= 10, "{status}");
            for check in checks {
                let id = check["id"].as_str().context("an id")?;
                let line = shown.line(id)?;
                ensure!(
                    line[1] == "holds" && line[2] == check["promise"].as_str().unwrap_or_default(),
                    "{line:?}"
                );
            }
            shown.has(&format!("{0} of {0} promises hold", checks.len()))
        }),
        row("the_container_is_there_with_its_own_range_and_figures", |shown| {
            let line = shown.line(NAME)?;
            let map = shown.vm.docker(&["exec", NAME, "cat", "/proc/self/uid_map"])?.ok()?;
            let first: u32 = map.split_whitespace().nth(1).context("a map")?.parse()?;
            ensure!(line[1] == IMAGE && line[3].starts_with("Up "), "{line:?}");
            ensure!(line[4] == format!("{first}–{}", first + 65_535), "{line:?}, and its map is {map}");
            ensure!(line[5].ends_with(" MiB") && line[5] != "0.0 MiB", "{line:?}");
            ensure!(line[6].ends_with(" %"), "{line:?}");
            Ok(())
        }),
        row("a_refusal_is_there_with_its_remedy_and_is_counted", |shown| {
            let told = shown.vm.builder(&["audit", "--name", "dashboard", "--json"])?.ok()?;
            let last: serde_json::Value = serde_json::from_str(told.lines().last().context("a refusal")?)?;
            let text = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
            ensure!(!text("remedy").is_empty(), "{last}");
            let line = shown.line(&text("time").replace('T', " ").replace('Z', ""))?;
            ensure!(
                line[1] == text("rule") && line[3] == text("message") && line[4] == text("remedy"),
                "{line:?}"
            );
            let counted = shown.line("no-host-namespace")?;
            ensure!(counted[1] == "2", "{counted:?}");
            Ok(())
        }),
        row("what_looks_like_markup_is_text", |shown| {
            for (line, cell) in [(shown.line(NAME)?, 2), (shown.line_with(MARKUP)?, 3)] {
                ensure!(line[cell].contains(MARKUP), "{line:?}");
            }
            ensure!(!shown.dom.contains("<img"), "an element came of it");
            ensure!(!shown.dom.contains("owned</title>"), "a script of a container ran");
            Ok(())
        }),
        row("memory_and_processors_are_there", |shown| {
            shown.has(" of 2048 MiB in use")?;
            shown.has("<dd>2, x86_64, emulated (TCG)</dd>")
        }),
        row("the_boot_is_drawn_a_bar_a_step", |shown| {
            let status = shown.vm.status()?;
            let steps = status["steps"].as_array().context("steps")?;
            let bars = shown.dom.matches("<rect ").count();
            ensure!(bars == steps.len() + 2, "{bars} bars for {} steps", steps.len());
            for step in steps {
                let name = step["name"].as_str().context("a name")?;
                shown.has(&format!("text-anchor=\"end\">{name}</text>"))?;
                shown.has(&format!("{name} {} ms", step["ms"]))?;
            }
            // Nothing failed; what this machine leaves out did not either.
            ensure!(!shown.dom.contains(" ms, failed<"), "a step failed");
            shown.has("rosetta 0 ms: left out: x86-64 programs are this machine's own")?;
            shown.has("<title id=\"boot-name\">")
        }),
        row("a_picture_is_kept", |shown| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/pictures");
            fs::create_dir_all(&folder)?;
            let picture = folder.join("dashboard.png");
            browse(
                &shown.page.url,
                ROUNDS,
                &[&format!("--screenshot={}", picture.display()), "--window-size=1200,2600"],
            )?;
            ensure!(fs::metadata(&picture)?.len() > 10_000, "the picture is empty");
            Ok(())
        }),
        row("who_has_not_the_token_or_comes_by_another_name_gets_nothing", |shown| {
            let Page { port, query, .. } = &shown.page;
            let ours = format!("127.0.0.1:{port}");
            let hash = shown.vm.status()?["image"]["root_hash"].as_str().unwrap_or_default().to_owned();
            let data = shown.page.get(&format!("/data.json?{query}"), &ours)?;
            ensure!(data.starts_with("HTTP/1.1 200 ") && data.contains(&hash), "{data}");
            let (almost, last) = query.split_at(query.len() - 1);
            let another = format!("{almost}{}", if last == "0" { "1" } else { "0" });
            for (target, host) in [
                ("/".to_owned(), ours.as_str()),
                ("/data.json".to_owned(), &ours),
                (format!("/data.json?{another}"), &ours),
                (format!("/data.json?{query}"), "example.com"),
                (format!("/data.json?{query}"), &format!("10.0.2.2:{port}")),
            ] {
                let answer = shown.page.get(&target, host)?;
                ensure!(
                    answer.starts_with("HTTP/1.1 403 ") && !answer.contains(&hash),
                    "{target} at {host}: {answer}"
                );
            }
            Ok(())
        }),
        row("a_container_that_reaches_the_port_gets_nothing", |shown| {
            let ask = format!(
                "printf 'GET /data.json HTTP/1.1\\r\\nHost: 127.0.0.1:{0}\\r\\n\\r\\n' | nc -w 20 10.0.2.2 {0}",
                shown.page.port
            );
            let answer = shown.vm.sh(&[], &ask)?;
            ensure!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            Ok(())
        }),
        row("a_vm_that_hangs_is_said_to", |shown| {
            let qemu = shown.vm.qemu()?;
            command::host("kill", &["-STOP", &qemu])?.ok()?;
            let dom = dom(&shown.page.url, ONE_ROUND);
            command::host("kill", &["-CONT", &qemu])?.ok()?;
            let dom = dom?;
            ensure!(dom.contains("No answer: the instance did not answer"), "{dom}");
            ensure!(!dom.contains(">Ready<"), "{dom}");
            Ok(())
        }),
        row("an_instance_that_was_stopped_is_said_to_be", |shown| {
            shown.vm.stop()?;
            let dom = dom(&shown.page.url, ONE_ROUND)?;
            ensure!(dom.contains("No answer: the instance is stopped"), "{dom}");
            shown.vm.run(&[])?.ok()?;
            let dom = self::dom(&shown.page.url, ROUNDS)?;
            ensure!(dom.contains(">Ready<") && dom.contains("no-host-namespace"), "{dom}");
            Ok(())
        }),
    ]
}

/// An instance with something to show, its dashboard, and what a browser made of that.
struct Shown {
    vm: Vm,
    page: Page,
    dom: String,
}

impl Shown {
    fn start() -> Result<Self> {
        let vm = Vm::start("dashboard", &image::out()?)?;
        vm.import_busybox()?;
        vm.docker(&["tag", "busybox", IMAGE])?.ok()?;
        let script = format!("sleep 900 # {MARKUP}");
        let label = format!("<script>={MARKUP}");
        vm.docker(&["run", "-d", "--name", NAME, "--label", &label, IMAGE, "sh", "-c", &script])?.ok()?;
        let device = format!("/dev/vda:/dev/{MARKUP}");
        for flags in [["--device", &device], ["--pid", "host"], ["--network", "host"]] {
            let run = ["run", "--rm", flags[0], flags[1], "busybox", "true"];
            vm.docker(&run)?.refused(&["enhanced container isolation:"])?;
        }
        let page = Page::of(&vm)?;
        let dom = dom(&page.url, ROUNDS)?;
        Ok(Self { vm, page, dom })
    }

    fn has(&self, text: &str) -> Result<()> {
        ensure!(self.dom.contains(text), "`{text}` is not on the page");
        Ok(())
    }

    /// The cells of the line that begins with this one.
    fn line(&self, first: &str) -> Result<Vec<String>> {
        let found = lines(&self.dom).find(|cells| cells.first().is_some_and(|cell| cell == first));
        found.with_context(|| format!("no line of a table begins with `{first}`"))
    }

    /// The cells of the line that has this text in one of them, and is not the container's.
    fn line_with(&self, text: &str) -> Result<Vec<String>> {
        let has = |cells: &Vec<String>| cells[0] != NAME && cells.iter().any(|cell| cell.contains(text));
        lines(&self.dom).find(has).with_context(|| format!("no other line of a table has `{text}`"))
    }
}

/// Lines of tables, as the text of their cells.
fn lines(dom: &str) -> impl Iterator<Item = Vec<String>> {
    dom.split("<tr>").skip(1).map(|line| {
        let line = line.split("</tr>").next().unwrap_or_default().replace("</th>", "</td>");
        line.split_terminator("</td>").map(text).collect()
    })
}

/// The text between tags.
fn text(html: &str) -> String {
    let text: String = html.split('<').filter_map(|tag| tag.split_once('>')).map(|(_, text)| text).collect();
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// A dashboard that runs until this is dropped.
struct Page {
    process: Child,
    url: String,
    port: u16,
    query: String,
}

impl Page {
    fn of(vm: &Vm) -> Result<Self> {
        let mut command = vm.builder_command()?;
        command.args(["dashboard", "--name", "dashboard"]).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().context("a pipe")?).read_line(&mut url)?;
        let url = url.trim_end().to_owned();
        let rest = url.strip_prefix("http://127.0.0.1:").with_context(|| format!("it printed `{url}`"))?;
        let (port, query) = rest.split_once("/?").with_context(|| format!("it printed `{url}`"))?;
        let (port, query) = (port.parse()?, query.to_owned());
        Ok(Self { process, url, port, query })
    }

    fn get(&self, target: &str, host: &str) -> Result<String> {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        write!(client, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It ends with this signal as with Ctrl-C; one that ended before was told of by a row.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What a browser has made of the page after that much of its own time.
fn dom(url: &str, milliseconds: u32) -> Result<String> {
    browse(url, milliseconds, &["--dump-dom"])
}

/// stdout of a browser with a profile of its own, in which time passes while nothing is waited for.
fn browse(url: &str, milliseconds: u32, arguments: &[&str]) -> Result<String> {
    let profile = tempfile::tempdir()?;
    let mut browser = Command::new("timeout");
    browser.args(["--kill-after=5", "180", "chromium", "--headless", "--no-sandbox", "--disable-gpu"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display()));
    browser.arg(format!("--virtual-time-budget={milliseconds}"));
    browser.args(["--no-first-run", "--hide-scrollbars"]).args(arguments).arg(url);
    command::run(browser.env("HOME", profile.path()), &[])?.ok()
}
