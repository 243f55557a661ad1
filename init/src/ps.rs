//! `ps` as the engine runs it for `docker top`: a table of the processes that it is told of, and of no others.
//!
//! The engine appends `-qPID,…`, the container's processes, to what its user asked for, and where that fails asks again without. It keeps
//! the lines whose column `PID` has one of those numbers. Debian's `ps` lets the user name columns anew, so that any number of any process
//! is its `PID`; so this one has the usual columns under their own names, and without the list it shows nothing.

use std::fs;
use std::io::{self, Write};
use std::process;

/// Clock ticks in a second, as procfs counts time on every architecture (`USER_HZ`).
const TICKS: u64 = 100;
const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Major numbers of pseudo terminals (`UNIX98_PTY_SLAVE_MAJOR`), 256 to each.
const TERMINALS: std::ops::RangeInclusive<u64> = 136..=143;

/// A column: its names in `-o`, its title, and how it shows.
struct Column {
    names: &'static [&'static str],
    title: &'static str,
    show: fn(&Process, &System) -> String,
}

const fn column(
    names: &'static [&'static str],
    title: &'static str,
    show: fn(&Process, &System) -> String,
) -> Column {
    Column { names, title, show }
}

const COLUMNS: &[Column] = &[
    column(&["pid"], "PID", |process, _| process.pid.to_string()),
    column(&["ppid"], "PPID", |process, _| process.parent.to_string()),
    column(&["uid", "euid"], "UID", |process, _| process.user.to_string()),
    column(&["user", "euser", "uname"], "USER", |process, _| process.user.to_string()),
    column(&["c", "cp"], "C", |process, system| process.cpu_percent(system).to_string()),
    column(&["%cpu", "pcpu"], "%CPU", |process, system| process.cpu_percent(system).to_string()),
    column(&["%mem", "pmem"], "%MEM", |process, system| {
        (process.resident_kib * 100).checked_div(system.memory_kib).unwrap_or_default().to_string()
    }),
    column(&["vsz", "vsize"], "VSZ", |process, _| process.virtual_kib.to_string()),
    column(&["rss", "rssize"], "RSS", |process, _| process.resident_kib.to_string()),
    column(&["tty", "tt", "tname"], "TTY", |process, _| process.terminal()),
    column(&["stat", "s", "state"], "STAT", |process, _| process.state.clone()),
    column(&["nlwp", "thcount"], "NLWP", |process, _| process.threads.to_string()),
    column(&["ni", "nice"], "NI", |process, _| process.nice.clone()),
    column(&["stime", "start", "start_time"], "STIME", Process::begun),
    column(&["etimes"], "ELAPSED", |process, system| process.age(system).to_string()),
    column(&["time", "cputime"], "TIME", |process, _| clock(process.cpu_ticks / TICKS)),
    column(&["comm", "ucmd", "ucomm"], "COMMAND", |process, _| process.name.clone()),
    column(&["args", "cmd", "command"], "CMD", |process, _| process.command.clone()),
];

/// `-ef`, which the engine asks for by itself.
const FULL: &[&str] = &["uid", "pid", "ppid", "c", "stime", "tty", "time", "args"];
/// `aux`.
const USER: &[&str] = &["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "stime", "time", "args"];

/// Prints the table. Does not return.
pub fn run(arguments: &[String]) -> ! {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = asked(&arguments).and_then(|(columns, pids)| {
        let system = System::read();
        let processes: Vec<_> = pids.into_iter().filter_map(Process::read).collect();
        let table = table(&columns, &processes, &system);
        io::stdout().write_all(table.as_bytes()).map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => process::exit(0),
        Err(why) => {
            // The engine passes it on; nobody else is there to hear.
            drop(writeln!(io::stderr(), "ps: {why}"));
            process::exit(1)
        }
    }
}

/// Columns and processes that the arguments ask for.
fn asked(arguments: &[&str]) -> Result<(Vec<&'static Column>, Vec<u32>), String> {
    let mut names: Option<Vec<&str>> = None;
    let mut pids = None;
    let mut rest = arguments.iter().copied().filter(|argument| !argument.is_empty());
    while let Some(argument) = rest.next() {
        if let Some(list) = argument.strip_prefix("-q") {
            let numbers: Result<Vec<u32>, _> = list.split(',').map(str::parse).collect();
            pids = Some(numbers.map_err(|_| unknown(argument))?);
        } else if let Some((_, list)) = argument.strip_prefix('-').and_then(|word| word.split_once('o')) {
            let list = if list.is_empty() { rest.next().unwrap_or_default() } else { list };
            names.get_or_insert_default().extend(list.split(','));
        } else if is_of(argument, "-", "eAafxwl") {
            names = names.or_else(|| argument.contains('f').then(|| FULL.to_vec()));
        } else if is_of(argument, "", "auxw") {
            names = names.or_else(|| argument.contains('u').then(|| USER.to_vec()));
        } else {
            return Err(unknown(argument));
        }
    }
    let names = names.unwrap_or_else(|| FULL.to_vec());
    let found: Result<Vec<_>, _> =
        names.into_iter().map(|name| find(name).ok_or_else(|| unknown(name))).collect();
    // Last: asked again without a list, the engine passes on why the first time failed.
    let (found, pids) = (found?, pids.ok_or("only a container's own processes are shown")?);
    Ok((found, pids))
}

/// Whether an argument is this prefix with some of these letters.
fn is_of(argument: &str, prefix: &str, letters: &str) -> bool {
    let word = argument.strip_prefix(prefix).unwrap_or_default();
    !word.is_empty() && word.chars().all(|letter| letters.contains(letter))
}

fn find(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.names.contains(&name))
}

fn unknown(what: &str) -> String {
    let what: String = what.chars().filter(|letter| !letter.is_control()).take(40).collect();
    let names: Vec<_> = COLUMNS.iter().filter_map(|column| column.names.first().copied()).collect();
    format!("`{what}` is not known here; there is -ef, aux, and -o with any of {}", names.join(","))
}

/// Values have no white space but in the last column: the engine takes columns apart by that.
fn table(columns: &[&Column], processes: &[Process], system: &System) -> String {
    let mut rows = vec![columns.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>()];
    rows.extend(
        processes.iter().map(|process| columns.iter().map(|column| (column.show)(process, system)).collect()),
    );
    let mut text = String::new();
    for row in rows {
        for (index, value) in row.iter().enumerate() {
            let last = index + 1 == row.len();
            let value =
                if last { value.clone() } else { value.split_whitespace().collect::<Vec<_>>().join("_") };
            text.push_str(if value.is_empty() { "-" } else { &value });
            text.push(if last { '\n' } else { '\t' });
        }
    }
    text
}

/// What times and shares are counted by.
#[derive(Debug, Default)]
struct System {
    now: u64,
    booted: u64,
    memory_kib: u64,
}

impl System {
    fn read() -> Self {
        let number = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split('.').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let booted = number("/proc/stat", "btime ");
        Self { now: booted + seconds, booted, memory_kib: number("/proc/meminfo", "MemTotal:") }
    }
}

/// One process.
#[derive(Debug, Default)]
struct Process {
    pid: u32,
    parent: u64,
    user: u64,
    name: String,
    command: String,
    state: String,
    nice: String,
    threads: u64,
    tty: u64,
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_kib: u64,
    resident_kib: u64,
}

impl Process {
    /// `None` when it has ended.
    fn read(pid: u32) -> Option<Self> {
        let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
        let text = |name| Some(String::from_utf8_lossy(&file(name)?).into_owned());
        Self::parse(pid, &text("stat")?, &text("status")?, &text("cmdline")?)
    }

    /// From `stat`, `status` and `cmdline` of proc(5).
    fn parse(pid: u32, stat: &str, status: &str, cmdline: &str) -> Option<Self> {
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        // Field 3 of proc(5) is the first here.
        let fields: Vec<_> = tail.split_whitespace().collect();
        let number = |field: usize| {
            fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
        };
        let line = |name: &str, word: usize| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().nth(word)?.parse::<u64>().ok()).unwrap_or_default()
        };
        let shown: String = cmdline
            .trim_end_matches('\0')
            .chars()
            .map(|letter| match letter {
                '\0' => ' ',
                letter if letter.is_control() => '?',
                letter => letter,
            })
            .collect();
        let name: String =
            name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
        Some(Self {
            pid,
            parent: number(4),
            user: line("Uid:", 1),
            command: if shown.is_empty() { format!("[{name}]") } else { shown },
            name,
            state: fields.first().copied().unwrap_or("?").to_owned(),
            nice: fields.get(19 - 3).copied().unwrap_or("-").to_owned(),
            threads: number(20),
            tty: number(7),
            cpu_ticks: number(14) + number(15),
            start_ticks: number(22),
            virtual_kib: line("VmSize:", 0),
            resident_kib: line("VmRSS:", 0),
        })
    }

    /// Seconds since it began.
    fn age(&self, system: &System) -> u64 {
        system.now.saturating_sub(system.booted + self.start_ticks / TICKS)
    }

    fn cpu_percent(&self, system: &System) -> u64 {
        (self.cpu_ticks * 100 / TICKS).checked_div(self.age(system)).unwrap_or_default()
    }

    /// The time of day in UTC, or how many days ago.
    fn begun(&self, system: &System) -> String {
        let begun = system.booted + self.start_ticks / TICKS;
        match self.age(system) / DAY_SECONDS {
            0 => format!("{:02}:{:02}", begun / 3600 % 24, begun / 60 % 60),
            days => format!("-{days}d"),
        }
    }

    fn terminal(&self) -> String {
        let (major, minor) = (self.tty >> 8 & 0xfff, self.tty & 0xff | self.tty >> 12 & 0xf_ff00);
        if TERMINALS.contains(&major) {
            format!("pts/{}", (major - TERMINALS.start()) * 256 + minor)
        } else {
            "?".to_owned()
        }
    }
}

/// Hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "12 (a) b) S 3 12 12 34817 12 4194304 1 0 0 0 250 50 0 0 20 -5 4 0 6000 1024 10 18446744073709551615";
    const STATUS: &str =
        "Name:\ta\nUid:\t100000\t100001\t100000\t100000\nVmSize:\t   2048 kB\nVmRSS:\t   512 kB\n";
    const SYSTEM: System = System { now: 90_000 + 160, booted: 90_000, memory_kib: 5120 };

    fn titles(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
        asked(arguments).map(|(columns, _)| columns.iter().map(|column| column.title).collect())
    }

    #[test]
    fn a_process_is_shown_as_the_engine_and_people_ask_for_it() {
        let process = Process::parse(12, STAT, STATUS, "sleep\0\x1b1 2\0").unwrap();
        let (columns, pids) = asked(&["-ef", "-q12,13"]).unwrap();
        assert_eq!(pids, [12, 13]);
        let shown = table(&columns, &[process], &SYSTEM);
        let expected = "UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD\n100001\t12\t3\t3\t01:01\tpts/1\t00:00:03\tsleep ?1 2\n";
        assert_eq!(shown, expected);
        let process = Process::parse(12, STAT, STATUS, "").unwrap();
        let (columns, _) = asked(&["-o", "pid,comm,rss,%mem,ni,args", "-q12"]).unwrap();
        assert_eq!(
            table(&columns, &[process], &SYSTEM),
            "PID\tCOMMAND\tRSS\t%MEM\tNI\tCMD\n12\ta)_b\t512\t10\t-5\t[a) b]\n"
        );
    }

    #[test]
    fn usual_ways_to_ask_are_understood() {
        for (arguments, last) in [
            (&["-q1"][..], "CMD"),
            (&["aux", "-q1"], "CMD"),
            (&["-eo", "pid,comm", "-q1"], "COMMAND"),
            (&["-opid,user", "-q1"], "USER"),
            (&["-o", "pid", "-o", "etimes", "-q1"], "ELAPSED"),
            (&["-e", "-f", "", "-q1"], "CMD"),
        ] {
            assert_eq!(titles(arguments).unwrap().last(), Some(&last), "{arguments:?}");
        }
    }

    #[test]
    fn nothing_is_shown_without_a_list_or_under_another_title() {
        for arguments in [
            &["-ef"][..],
            &["aux"],
            &["-orss=PID", "-oargs", "-q1"],
            &["-oargs=PID", "f", "-p1"],
            &["-o", "pid,environ", "-q1"],
            &["f", "-q1"],
            &["-p1", "-q1"],
            &["--ppid", "1", "-q1"],
            &["-q1,x"],
            &["-q"],
            &["e", "-q1"],
        ] {
            assert!(titles(arguments).is_err(), "{arguments:?}");
        }
        assert!(unknown("\u{1b}x").contains("`x` is not known here"));
    }
}
