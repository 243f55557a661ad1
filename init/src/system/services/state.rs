//! The life of one service as a pure machine: events in, the next state and at most one action out.

/// Where a service is in its life. Times are milliseconds since power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not started: something it needs is not ready.
    #[default]
    Waiting,
    /// Runs, and has not said that it is ready.
    Starting {
        /// Its process.
        pid: u32,
        /// When it is given up.
        deadline: u64,
    },
    /// Runs and is ready.
    Ready {
        /// Its process.
        pid: u32,
        /// Since when.
        since: u64,
    },
    /// Ended, and waits to be started again.
    BackingOff {
        /// Until when.
        until: u64,
    },
    /// Was told to end.
    Stopping {
        /// Its process.
        pid: u32,
        /// When it is killed.
        deadline: u64,
    },
    /// Ended for good.
    Stopped,
}

/// What the supervisor has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start a process.
    Spawn,
    /// Ask the process to end.
    Terminate(u32),
    /// Kill the service's whole cgroup.
    Kill,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick {
        /// What the service is needed for now.
        wanted: Wanted,
    },
    /// A process was started.
    Spawned {
        /// Its process id.
        pid: u32,
    },
    /// The process said that it is ready, or needs not say it.
    Ready,
    /// The process ended, or could not be started.
    Ended,
}

/// What a service should be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Run.
    Run,
    /// Not yet: it waits for others. A running one keeps running.
    Wait,
    /// End.
    Stop,
}

/// Times of one service, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it may take to get ready.
    pub start_ms: u64,
    /// How long it may take to end.
    pub stop_ms: u64,
    /// First pause before it is started again.
    pub first_pause_ms: u64,
    /// Longest pause.
    pub longest_pause_ms: u64,
}

/// A service that was ready for this long starts again with the shortest pause.
const PROVEN_MS: u64 = 60_000;

/// A killed process that waits for a disk is gone a little later; only then is it worth trying again.
const KILL_AGAIN_MS: u64 = 2_000;

/// A service's state, and how often in a row it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// Failures since it was last proven.
    pub failures: u32,
    /// Starts in a row that did not get ready; one that took too long counts for two.
    pub unready: u32,
}

/// So many starts that did not get ready are no accident.
const NO_ACCIDENT: u32 = 2;

impl Life {
    /// The process, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            State::Starting { pid, .. } | State::Ready { pid, .. } | State::Stopping { pid, .. } => Some(pid),
            State::Waiting | State::BackingOff { .. } | State::Stopped => None,
        }
    }

    /// Whether it does not get ready as it is started.
    #[must_use]
    pub fn never_gets_ready(&self) -> bool {
        self.unready >= NO_ACCIDENT
    }

    /// The next state after `event` at time `now`, and what to do.
    #[must_use]
    pub fn next(self, event: Event, limits: &Limits, now: u64) -> (Self, Action) {
        match event {
            Event::Tick { wanted } => self.tick(wanted, limits, now),
            Event::Spawned { pid } => {
                (self.to(State::Starting { pid, deadline: now + limits.start_ms }), Action::None)
            }
            Event::Ready => match self.state {
                State::Starting { pid, .. } => {
                    (Self { unready: 0, ..self.to(State::Ready { pid, since: now }) }, Action::None)
                }
                _ => (self, Action::None),
            },
            Event::Ended => (self.ended(limits, now), Action::None),
        }
    }

    fn tick(self, wanted: Wanted, limits: &Limits, now: u64) -> (Self, Action) {
        let stopping = |pid| self.to(State::Stopping { pid, deadline: now + limits.stop_ms });
        match (self.state, wanted) {
            (State::Waiting, Wanted::Run) => (self, Action::Spawn),
            (State::BackingOff { until }, Wanted::Run) if now >= until => (self, Action::Spawn),
            (State::Waiting | State::BackingOff { .. }, Wanted::Stop) => {
                (self.to(State::Stopped), Action::None)
            }
            (State::Starting { pid, .. } | State::Ready { pid, .. }, Wanted::Stop) => {
                (stopping(pid), Action::Terminate(pid))
            }
            (State::Starting { pid, deadline }, _) if now >= deadline => {
                let killed = self.to(State::Starting { pid, deadline: now + KILL_AGAIN_MS });
                (Self { unready: self.unready.saturating_add(1), ..killed }, Action::Kill)
            }
            (State::Stopping { pid, deadline }, _) if now >= deadline => {
                (self.to(State::Stopping { pid, deadline: now + KILL_AGAIN_MS }), Action::Kill)
            }
            _ => (self, Action::None),
        }
    }

    fn ended(self, limits: &Limits, now: u64) -> Self {
        let failures = match self.state {
            State::Stopping { .. } | State::Stopped => return self.to(State::Stopped),
            State::Ready { since, .. } if now.saturating_sub(since) >= PROVEN_MS => 1,
            _ => self.failures.saturating_add(1),
        };
        let was_ready = matches!(self.state, State::Ready { .. });
        let unready = if was_ready { self.unready } else { self.unready.saturating_add(1) };
        let doublings = failures.saturating_sub(1).min(16);
        let pause = (limits.first_pause_ms << doublings).min(limits.longest_pause_ms);
        Self { state: State::BackingOff { until: now + pause }, failures, unready }
    }

    fn to(self, state: State) -> Self {
        Self { state, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { start_ms: 100, stop_ms: 50, first_pause_ms: 10, longest_pause_ms: 35 };

    fn run(life: Life, event: Event, now: u64) -> (Life, Action) {
        life.next(event, &LIMITS, now)
    }

    fn tick(life: Life, wanted: Wanted, now: u64) -> (Life, Action) {
        run(life, Event::Tick { wanted }, now)
    }

    fn ready() -> Life {
        let (life, _) = run(Life::default(), Event::Spawned { pid: 7 }, 0);
        run(life, Event::Ready, 1).0
    }

    #[test]
    fn a_service_starts_only_when_wanted() {
        assert_eq!(tick(Life::default(), Wanted::Wait, 0).1, Action::None);
        assert_eq!(tick(Life::default(), Wanted::Run, 0).1, Action::Spawn);
        assert_eq!(ready().state, State::Ready { pid: 7, since: 1 });
    }

    #[test]
    fn pauses_grow_to_a_limit_and_shrink_after_a_proven_run() {
        let mut life = Life::default();
        for pause in [10, 20, 35, 35] {
            life = run(life, Event::Ended, 1000).0;
            assert_eq!(life.state, State::BackingOff { until: 1000 + pause });
        }
        assert_eq!(tick(life, Wanted::Run, 1034).1, Action::None);
        assert_eq!(tick(life, Wanted::Run, 1035).1, Action::Spawn);
        let proven = Life { state: State::Ready { pid: 7, since: 0 }, ..life };
        assert_eq!(run(proven, Event::Ended, PROVEN_MS).0.state, State::BackingOff { until: PROVEN_MS + 10 });
    }

    #[test]
    fn one_that_never_gets_ready_is_killed() {
        let (life, _) = run(Life::default(), Event::Spawned { pid: 7 }, 0);
        assert_eq!(tick(life, Wanted::Run, 99).1, Action::None);
        assert_eq!(tick(life, Wanted::Run, 100).1, Action::Kill);
    }

    #[test]
    fn two_starts_that_end_or_one_that_takes_too_long_are_no_accident() {
        let spawned = |life: Life| run(life, Event::Spawned { pid: 7 }, 0).0;
        let ended = |life: Life| run(life, Event::Ended, 1).0;
        let once = ended(spawned(Life::default()));
        let twice = ended(spawned(once));
        assert!(!once.never_gets_ready() && twice.never_gets_ready());
        let (late, action) = tick(spawned(Life::default()), Wanted::Run, 100);
        assert_eq!(action, Action::Kill);
        assert!(ended(late).never_gets_ready());
        // One that was ready and is killed is started as ever.
        assert!(!ended(run(spawned(twice), Event::Ready, 1).0).never_gets_ready());
        assert!(!ended(ended(ready())).never_gets_ready());
    }

    #[test]
    fn stopping_asks_once_then_kills_and_never_starts_again() {
        let (life, action) = tick(ready(), Wanted::Stop, 10);
        assert_eq!(action, Action::Terminate(7));
        assert_eq!(tick(life, Wanted::Stop, 59).1, Action::None);
        assert_eq!(tick(life, Wanted::Stop, 60).1, Action::Kill);
        let (life, _) = run(life, Event::Ended, 61);
        assert_eq!(life.state, State::Stopped);
        assert_eq!(tick(life, Wanted::Run, 99).1, Action::None);
    }

    #[test]
    fn what_never_ran_stops_at_once() {
        assert_eq!(tick(Life::default(), Wanted::Stop, 0).0.state, State::Stopped);
    }
}
