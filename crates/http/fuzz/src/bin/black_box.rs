// SPDX-License-Identifier: Apache-2.0
//! Sends the same bytes to two proxies and compares the requests that reach the origin behind each.
//!
//! `black_box.sh` starts the proxies. One proxy may refuse what the other serves, which is counted; a request that
//! both let through has to be the same one, with the same method, target and body.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// No answer for this long is an answer too.
const SILENCE: Duration = Duration::from_secs(2);
/// The same where the connection stays open, since its end would take its streams along.
const SILENCE_OF_STREAMS: Duration = Duration::from_millis(60);
/// What an origin reads of one connection at most.
const LARGEST: usize = 1 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request as an origin read it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    method: String,
    target: String,
    body: Vec<u8>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.method, self.target, self.body.escape_ascii())
    }
}

/// What reached an origin since it was last asked.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn note(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A proxy and the origin behind it.
struct Side {
    name: String,
    proxy: SocketAddr,
    log: Log,
}

impl Side {
    fn start(name: &str, proxy: &str, origin: &str) -> io::Result<Self> {
        let log = Log::default();
        let listener = TcpListener::bind(origin)?;
        let shared = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = shared.clone();
                thread::spawn(move || origin_connection(stream, &log));
            }
        });
        let proxy = proxy.parse().map_err(|_| io::Error::other(format!("{proxy} is no address and port")))?;
        Ok(Self { name: name.to_owned(), proxy, log })
    }

    /// What reaches the origin when these bytes are sent.
    fn ask(&self, input: &[u8], streams: bool) -> io::Result<Vec<Seen>> {
        self.log.take();
        let mut stream = TcpStream::connect(self.proxy)?;
        stream.set_read_timeout(Some(if streams { SILENCE_OF_STREAMS } else { SILENCE }))?;
        stream.set_write_timeout(Some(SILENCE))?;
        // A proxy that has refused closes before everything is written.
        if stream.write_all(input).is_ok() && !streams {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = [0; 4096];
        let end = Instant::now() + SILENCE;
        while Instant::now() < end && matches!(stream.read(&mut answer), Ok(1..)) {}
        Ok(self.log.take())
    }
}

/// Reads requests, notes those that are complete, and answers them.
fn origin_connection(mut stream: TcpStream, log: &Log) {
    let mut input = Vec::new();
    let mut piece = [0; 16 << 10];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        input.extend_from_slice(&piece[..read]);
        loop {
            let seen = match complete(&input) {
                Ok(Some((seen, used))) => {
                    input.drain(..used);
                    seen
                }
                Ok(None) => break,
                Err(Unreadable) => {
                    let body = input[..input.len().min(80)].to_vec();
                    log.note(Seen { method: "unreadable".to_owned(), target: String::new(), body });
                    return;
                }
            };
            log.note(seen);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
        if input.len() > LARGEST {
            return;
        }
    }
}

/// A proxy sent what is no HTTP.
struct Unreadable;

impl From<httparse::Error> for Unreadable {
    fn from(_: httparse::Error) -> Self {
        Self
    }
}

impl From<httparse::InvalidChunkSize> for Unreadable {
    fn from(_: httparse::InvalidChunkSize) -> Self {
        Self
    }
}

/// The first request of the input with the bytes that it takes, if all of it is there.
fn complete(input: &[u8]) -> Result<Option<(Seen, usize)>, Unreadable> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(input)? else { return Ok(None) };
    let value = |name: &str| {
        let mut fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.next().map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
    };
    let body = match (value("transfer-encoding"), value("content-length")) {
        (Some(_), _) => chunked(&input[head..])?,
        (None, Some(length)) => {
            let length = length.parse().map_err(|_| Unreadable)?;
            input[head..].get(..length).map(|body| (body.to_vec(), length))
        }
        (None, None) => Some((Vec::new(), 0)),
    };
    let Some((body, used)) = body else { return Ok(None) };
    let seen = Seen {
        method: request.method.unwrap_or_default().to_owned(),
        target: origin_form(request.path.unwrap_or_default()),
        body,
    };
    Ok(Some((seen, head + used)))
}

/// A proxy may pass an absolute target on as it came.
fn origin_form(target: &str) -> String {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return target.to_owned();
    };
    match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => rest[at..].to_owned(),
        Some(at) => format!("/{}", &rest[at..]),
        None => "/".to_owned(),
    }
}

fn chunked(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Unreadable> {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(rest) = input.get(at..) {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(rest)? else { break };
        at += line;
        let size = usize::try_from(size).map_err(|_| Unreadable)?;
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 256];
            let trailers = httparse::parse_headers(&input[at..], &mut fields)?;
            let httparse::Status::Complete((trailers, _)) = trailers else { break };
            return Ok(Some((body, at + trailers)));
        }
        let end = at.checked_add(size).ok_or(Unreadable)?;
        let Some(piece) = input.get(at..end) else { break };
        body.extend_from_slice(piece);
        at = end + 2;
    }
    Ok(None)
}

/// xorshift64*: the same inputs for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap_or(0) % bound.max(1)
    }

    /// A kept input, changed in up to three places, or two of them one after the other.
    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        if self.below(3) == 0 {
            input.extend_from_slice(&corpus[self.below(corpus.len())]);
        }
        for _ in 0..self.below(4) {
            let at = self.below(input.len());
            match self.below(4) {
                0 if at < input.len() => input[at] = self.byte(),
                1 => input.insert(at, self.byte()),
                2 if at < input.len() => drop(input.remove(at)),
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let piece = &other[from..(from + self.below(24)).min(other.len())];
                    input.splice(at..at, piece.iter().copied());
                }
            }
        }
        input.truncate(32 << 10);
        input
    }

    fn byte(&mut self) -> u8 {
        const LIKELY: &[u8] = b"\r\n \t:;,0123456789abcdefA/?#%&=\"\\\0\x0b\x7f\xff@[]";
        if self.below(2) == 0 {
            LIKELY[self.below(LIKELY.len())]
        } else {
            u8::try_from(self.below(256)).unwrap_or_default()
        }
    }
}

/// How two proxies understood one input.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy, Debug)]
enum Outcome {
    /// Neither let a request through.
    Neither,
    /// The same requests.
    Same,
    /// The first let only some of them through.
    FirstStricter,
    /// The second did.
    SecondStricter,
    /// Requests that are not the same.
    Different,
}

fn compare(ours: &[Seen], theirs: &[Seen], streams: bool) -> Outcome {
    let within = |few: &[Seen], many: &[Seen]| {
        let mut left = many.to_vec();
        if !streams {
            return many.starts_with(few);
        }
        few.iter().all(|seen| left.iter().position(|other| other == seen).map(|at| left.remove(at)).is_some())
    };
    match (within(ours, theirs), within(theirs, ours)) {
        (true, true) if ours.is_empty() => Outcome::Neither,
        (true, true) => Outcome::Same,
        (true, false) => Outcome::FirstStricter,
        (false, true) => Outcome::SecondStricter,
        (false, false) => Outcome::Different,
    }
}

struct Run {
    sides: [Side; 2],
    streams: bool,
    counts: BTreeMap<Outcome, u64>,
    artifacts: PathBuf,
}

impl Run {
    /// A difference counts if it is there three times.
    fn one(&mut self, input: &[u8]) -> io::Result<()> {
        let sent = if self.streams { [PREFACE, input].concat() } else { input.to_vec() };
        let mut outcome = Outcome::Neither;
        let mut seen = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            seen = [self.sides[0].ask(&sent, self.streams)?, self.sides[1].ask(&sent, self.streams)?];
            outcome = compare(&seen[0], &seen[1], self.streams);
            if outcome <= Outcome::Same {
                break;
            }
        }
        let count = self.counts.entry(outcome).or_default();
        *count += 1;
        let keep = match outcome {
            Outcome::Neither | Outcome::Same => false,
            Outcome::FirstStricter | Outcome::SecondStricter => *count <= 40,
            Outcome::Different => true,
        };
        if keep {
            let file = self.artifacts.join(format!("{outcome:?}-{count}"));
            let [ours, theirs] = &self.sides;
            fs::write(
                file,
                format!(
                    "{}\n\n{}: {:?}\n{}: {:?}\n",
                    input.escape_ascii(),
                    ours.name,
                    seen[0],
                    theirs.name,
                    seen[1]
                ),
            )?;
        }
        Ok(())
    }
}

/// The inputs of a target, without the bytes that say how a target cuts them.
fn corpus(dir: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let input = fs::read(entry?.path())?;
        inputs.extend(input.get(3..).filter(|input| input.len() < 4096).map(<[u8]>::to_vec));
    }
    inputs.sort();
    if inputs.is_empty() {
        return Err(io::Error::other(format!("{} is empty; cargo run --bin corpus unpack", dir.display())));
    }
    Ok(inputs)
}

fn run(args: &[String]) -> io::Result<bool> {
    let [version, seconds, corpus_dir, artifacts, sides @ ..] = args else { return Err(usage()) };
    let [first, first_proxy, first_origin, second, second_proxy, second_origin] = sides else {
        return Err(usage());
    };
    let seconds = seconds.parse().map_err(|_| usage())?;
    fs::create_dir_all(artifacts)?;
    let corpus = corpus(Path::new(corpus_dir))?;
    let sides =
        [Side::start(first, first_proxy, first_origin)?, Side::start(second, second_proxy, second_origin)?];
    let streams = version == "h2";
    let mut run = Run { sides, streams, counts: BTreeMap::new(), artifacts: artifacts.into() };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut kept = corpus.iter();
    while Instant::now() < end {
        let input = kept.next().cloned().unwrap_or_else(|| random.input(&corpus));
        run.one(&input)?;
    }
    println!("{first} and {second}, {version}, {seconds} s: {:?}", run.counts);
    Ok(!run.counts.contains_key(&Outcome::Different))
}

fn usage() -> io::Error {
    io::Error::other(
        "usage: black_box h1|h2 SECONDS CORPUS ARTIFACTS NAME PROXY ORIGIN NAME PROXY ORIGIN (see black_box.sh)",
    )
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("black_box: {error}");
            ExitCode::from(2)
        }
    }
}
