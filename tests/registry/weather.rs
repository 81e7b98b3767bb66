//! Many seeded runs, each in a weather of its own, and what came of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, Kind};
use imagewright::http::Http;
use imagewright::registry::Registry;

use crate::faults::{Fault, Told, Weather};
use crate::lab::{Options, PASSWORD, Server, login_file};
use crate::proxy::Proxy;
use crate::wares::Random;

const THREADS: u64 = 4;

/// No run may take longer, on the busiest machine.
const LIMIT: Duration = Duration::from_secs(150);

/// What a run may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sky {
    /// Showers of everything.
    Mixed,
    /// One kind of trouble alone.
    OneKind,
    /// Every request suffers, once.
    Passing,
    /// Some requests never succeed.
    Hopeless,
    /// Nothing is answered any more from some moment on.
    Outage,
}

/// The weather of a seed.
pub fn of(seed: u64) -> (Sky, Weather) {
    let mut random = Random(seed * 7_919 + 1);
    for _ in 0..4 {
        random.next();
    }
    let mut below = |limit: u64| random.next() % limit;
    let one = Fault::ALL[(seed / 8 * 5 + seed % 8 + below(2)) as usize % Fault::ALL.len()];
    let mixed = Weather {
        seed,
        permille: 20 + below(180),
        faults: Fault::ALL.to_vec(),
        // More than are on their way at a time: a token that ends before it has worked for anybody is no good one.
        token_uses: (seed.is_multiple_of(3)).then(|| 16 + below(16) as u32),
        ..Weather::default()
    };
    let first = ["PUT", "POST", "HEAD", "PATCH", "GET"][below(5) as usize];
    match seed % 8 {
        0..3 => (Sky::Mixed, mixed),
        3 | 4 => {
            let faults = vec![one];
            let permille = 200;
            (
                Sky::OneKind,
                Weather {
                    permille,
                    faults,
                    ..mixed
                },
            )
        }
        5 => {
            let (faults, passing) = (vec![one], Some(1));
            let permille = 1000;
            (
                Sky::Passing,
                Weather {
                    permille,
                    faults,
                    passing,
                    ..mixed
                },
            )
        }
        6 => {
            let (faults, only) = (vec![one], format!("{first} "));
            let permille = 1000;
            (
                Sky::Hopeless,
                Weather {
                    permille,
                    faults,
                    only,
                    ..mixed
                },
            )
        }
        _ => {
            let outage = Some(below(40) as u32);
            (
                Sky::Outage,
                Weather {
                    permille: 0,
                    outage,
                    ..mixed
                },
            )
        }
    }
}

/// A client that does not wait long before it tries again.
pub fn client(folder: &Path, address: &str) -> Registry {
    let ambient = Ambient {
        registry_auth: vec![login_file(folder, &[address])],
        ..Ambient::default()
    };
    let http = Http::new(&ambient, false).unwrap();
    Registry::new(http.with_pause(Duration::from_millis(5)), &ambient)
}

/// An error that says what could not be done, with what, and why; and gives nothing away.
#[track_caller]
pub fn assert_clear(error: &(impl Explain + ?Sized), when: &str) {
    let message = error.to_string();
    let kinds = [Kind::Unavailable, Kind::Unauthorised, Kind::Refused];
    let kind = error.kind();
    assert!(kinds.contains(&kind), "{when}: {kind:?}: {message}");
    assert!(
        message.len() > 20 && message.contains("127.0.0.1:"),
        "{when}: {message}"
    );
    for bad in [PASSWORD, "token-", "_state", "backtrace"] {
        assert!(!message.contains(bad), "{when}: {message}");
    }
}

/// The registries, and what came of all runs against them.
pub struct Storm {
    servers: Vec<Server>,
    tally: Mutex<Tally>,
}

/// What came of all runs.
#[derive(Default)]
struct Tally {
    /// How often each fault came, and how often within a body.
    faults: BTreeMap<Fault, (u64, u64)>,
    /// Runs that ended right, of all.
    ends: BTreeMap<Sky, (u64, u64)>,
    errors: Vec<String>,
}

/// One run: bad weather between a client and a registry.
pub struct Run<'a> {
    pub storm: &'a Storm,
    pub server: &'a Server,
    pub proxy: Proxy,
    pub folder: tempfile::TempDir,
    pub seed: u64,
    sky: Sky,
}

impl Storm {
    pub fn new() -> Self {
        let distribution = Server::docker_registry(Options::default());
        let servers = std::iter::once(distribution).chain(Server::olareg());
        Self {
            servers: servers.collect(),
            tally: Mutex::default(),
        }
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The registry of a seed: of three, one is of the second kind.
    pub fn server(&self, seed: u64) -> &Server {
        match self.servers.get(1) {
            Some(second) if (seed / 8).is_multiple_of(3) => second,
            _ => &self.servers[0],
        }
    }

    pub fn run(&self, seed: u64) -> Run<'_> {
        self.begin(seed, of(seed))
    }

    /// Of requests that come one after the other: tokens end sooner.
    pub fn run_of_single_requests(&self, seed: u64) -> Run<'_> {
        let (sky, weather) = of(seed);
        let token_uses = weather.token_uses.map(|uses| 2 + uses % 5);
        let weather = Weather {
            token_uses,
            ..weather
        };
        self.begin(seed, (sky, weather))
    }

    fn begin(&self, seed: u64, (sky, weather): (Sky, Weather)) -> Run<'_> {
        let server = self.server(seed);
        Run {
            storm: self,
            server,
            proxy: Proxy::start(server.address(), weather),
            folder: tempfile::tempdir().unwrap(),
            seed,
            sky,
        }
    }

    /// Calls `run` with all seeds from `STORM_BASE` on, on some threads, and tells what came of it; or with the seed in
    /// `STORM_SEED` alone. Every fault has to come so often; those of what is written where `writing`.
    pub fn blow(
        self,
        runs: u64,
        (least, writing): (u64, bool),
        run: impl Fn(&Self, u64) + Send + Sync + 'static,
    ) {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let (first, runs) = match number("STORM_SEED") {
            Some(seed) => (seed, 1),
            None => (number("STORM_BASE").unwrap_or(0), runs),
        };
        let storm = Arc::new(self);
        let shared = Arc::clone(&storm);
        seeds(first, runs, move |seed| run(&shared, seed));
        if runs > 1 {
            storm.tally.lock().unwrap().judge(runs, least, writing);
        }
    }
}

impl Run<'_> {
    pub fn when(&self) -> String {
        format!("STORM_SEED={}, {:#?}", self.seed, self.proxy.told())
    }

    /// Counts a good end; a bad one must be explained. The bad weather ends with that.
    #[track_caller]
    pub fn ended<T, E: Explain>(&self, result: Result<T, E>) -> Option<T> {
        let when = self.when();
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => {
                assert_clear(&error, &when);
                (None, Some(error.to_string()))
            }
        };
        self.count(error);
        value
    }

    /// Counts an end.
    pub fn count(&self, error: Option<String>) {
        let mut tally = self.storm.tally.lock().unwrap();
        for Told { fault, at, .. } in self.proxy.told() {
            let count = tally.faults.entry(fault).or_default();
            count.0 += 1;
            count.1 += u64::from(at.is_some());
        }
        let (well, all) = tally.ends.entry(self.sky).or_default();
        *well += u64::from(error.is_none());
        *all += 1;
        if let Some(error) = error {
            let line = format!("{} {:?}: {error}", self.seed, self.sky);
            tally.errors.push(line);
        }
    }

    /// What is tagged on the registry's disk is whole.
    #[track_caller]
    pub fn assert_whole(&self, prefix: &str) {
        self.server.assert_whole_below(prefix, &self.when());
    }
}

impl Tally {
    /// Without good ends the runs would have shown nothing, without bad ones neither, and without faults even less.
    fn judge(&self, runs: u64, least: u64, writing: bool) {
        eprintln!("{runs} runs ended well: {:?}", self.ends);
        eprintln!("faults, and within a body: {:?}", self.faults);
        for line in &self.errors {
            eprintln!("  {line}");
        }
        let all: u64 = self.ends.values().map(|(_, all)| all).sum();
        assert_eq!(all, runs);
        let share = |sky: Sky, percent: u64| {
            let (well, all) = self.ends.get(&sky).copied().unwrap_or_default();
            well * 100 >= all * percent
        };
        // Of what is read, lists have no digest by which a damaged one could be known.
        for (sky, least) in match writing {
            true => [(Sky::Mixed, 90), (Sky::OneKind, 85), (Sky::Passing, 100)],
            false => [(Sky::Mixed, 80), (Sky::OneKind, 70), (Sky::Passing, 80)],
        } {
            assert!(share(sky, least), "{sky:?}: {:?}", self.errors);
        }
        assert!(!self.errors.is_empty(), "{:?}", self.ends);
        assert!(self.faults.len() >= 8, "{:?}", self.faults);
        for fault in Fault::ALL
            .into_iter()
            .chain([Fault::Expired, Fault::Outage])
        {
            let count = self.faults.get(&fault).copied().unwrap_or_default();
            let comes = writing || !fault.of_writing();
            assert!(!comes || count.0 >= least, "{fault:?}: {count:?}");
            let within = match fault {
                Fault::ResetRequest | Fault::WrongRequest => writing,
                Fault::ResetAnswer | Fault::Truncated | Fault::WrongAnswer => true,
                _ => false,
            };
            assert!(
                !within || count.1 >= least.div_ceil(24),
                "{fault:?}: {count:?}"
            );
        }
    }
}

/// Calls `run` with seeds on some threads. A run that fails is told by its seed; one that hangs is a failure.
fn seeds(first: u64, runs: u64, run: impl Fn(u64) + Send + Sync + 'static) {
    let next = Arc::new(AtomicU64::new(first));
    let run = Arc::new(run);
    let (sender, receiver) = mpsc::channel();
    for _ in 0..THREADS {
        let (next, run, sender) = (Arc::clone(&next), Arc::clone(&run), sender.clone());
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + runs || sender.send((seed, None)).is_err() {
                    return;
                }
                let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
                if sender.send((seed, Some(result))).is_err() {
                    return;
                }
            }
        });
    }
    drop((sender, run));
    let mut running = BTreeMap::new();
    loop {
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok((seed, None)) => drop(running.insert(seed, Instant::now())),
            Ok((seed, Some(result))) => {
                running.remove(&seed);
                if let Err(panic) = result {
                    eprintln!("failed: STORM_SEED={seed}");
                    resume_unwind(panic);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        let overdue = running.iter().find(|(_, since)| since.elapsed() > LIMIT);
        if let Some((seed, _)) = overdue {
            panic!("STORM_SEED={seed} does not end");
        }
    }
}
