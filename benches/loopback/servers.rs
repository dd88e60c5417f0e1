//! Starts the receivers that are compared, and reads their answers.

use crate::Options;
use crate::process::{Process, RINGEST, announced, pinned};
use crate::receivers::Drain;
use crate::shapes::{Cores, Shape};
use clap::ValueEnum;
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

/// A kind of receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The engine's own runtime and reads, discarding the bytes.
    Drain,
    /// `ringest serve`.
    Ingest,
    /// Blocking reads, discarding the bytes.
    Blocking,
    /// numpy + pandas, grouping after every read.
    Pandas,
    /// numpy + pandas, collecting more bytes before grouping.
    PandasGathering,
    /// Another build of `ringest serve`.
    Other,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Drain => "drain",
            Kind::Ingest => "ingest",
            Kind::Blocking => "blocking",
            Kind::Pandas => "pandas",
            Kind::PandasGathering => "pandas gathering",
            Kind::Other => "other",
        }
    }

    /// Whether it is so slow that it gets fewer records than the others.
    pub fn is_slow(self) -> bool {
        matches!(self, Kind::Pandas | Kind::PandasGathering)
    }

    /// Whether it answers with groups rather than a number of bytes.
    pub fn aggregates(self) -> bool {
        !matches!(self, Kind::Drain | Kind::Blocking)
    }
}

/// A running receiver, killed when dropped.
pub struct Server {
    /// The kind of receiver.
    pub kind: Kind,
    /// Its listening address.
    pub address: SocketAddr,
    process: Process,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Starts every receiver that a shape is sent to.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_all(options: &Options, shape: &Shape) -> Result<Vec<Server>, Box<dyn Error>> {
        let mut servers = vec![
            Server::drain(options, Kind::Drain, Drain::Uring)?,
            Server::serve(options, Kind::Ingest, RINGEST.as_ref(), shape)?,
            Server::drain(options, Kind::Blocking, Drain::Blocking)?,
        ];
        if let Some(program) = &options.against {
            servers.push(Server::serve(options, Kind::Other, program.as_ref(), shape)?);
        }
        if shape.pandas && options.python_has_pandas() {
            servers.push(Server::pandas(options, Kind::Pandas, 0)?);
            let batch_bytes = options.pandas_batch_bytes;
            servers.push(Server::pandas(options, Kind::PandasGathering, batch_bytes)?);
        }
        Ok(servers)
    }

    /// Starts this program itself as a drain.
    fn drain(options: &Options, kind: Kind, drain: Drain) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(&options.server_core.to_string(), std::env::current_exe()?);
        let drain = drain.to_possible_value().expect("every drain has a name");
        command.args(["--receive", drain.get_name()]);
        command.args(["--buffer-bytes", &options.buffer_bytes.to_string()]);
        Self::start(kind, command)
    }

    /// Starts `ringest serve` with one worker.
    fn serve(
        options: &Options,
        kind: Kind,
        program: &OsStr,
        shape: &Shape,
    ) -> Result<Self, Box<dyn Error>> {
        let core = options.server_core.to_string();
        // Threads inherit the process's mask; only the worker then pins itself.
        let mask = match shape.cores {
            Cores::One => core.clone(),
            Cores::FreeCore => format!("{core},{}", options.free_core()),
        };
        let mut command = pinned(&mask, program);
        command
            .args(["serve", "--host", "127.0.0.1", "--records-port", "0", "--admin-port", "0"])
            .args(["--no-messages", "--format", "ndjson", "--cores", &core])
            .args(["--buffer-bytes", &options.buffer_bytes.to_string()])
            .args(options.serve_args.split_whitespace());
        Self::start(kind, command)
    }

    fn pandas(options: &Options, kind: Kind, batch_bytes: usize) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(&options.server_core.to_string(), &options.python);
        command.arg(pandas_server()).arg(batch_bytes.to_string());
        Self::start(kind, command)
    }

    fn start(kind: Kind, mut command: Command) -> Result<Self, Box<dyn Error>> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let answers = BufReader::new(process.stdout().expect("it was piped"));
        let stderr = BufReader::new(process.stderr().expect("it was piped"));
        let address = announced(stderr, "records")
            .map_err(|error| format!("{} did not start: {error}", kind.name()))?;
        Ok(Server { kind, address, process, answers })
    }

    /// Processor time of all its threads so far.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.process.cpu()
    }

    /// Reads `lines` lines of answers, one for each connection.
    ///
    /// # Errors
    /// If the process ends before that.
    pub fn read_answers(
        &mut self,
        lines: usize,
        answers: &mut Vec<u8>,
    ) -> Result<(), Box<dyn Error>> {
        answers.clear();
        for answered in 0..lines {
            if self.answers.read_until(b'\n', answers)? == 0 {
                let ended = self.process.try_wait()?;
                return Err(format!(
                    "it ended after {answered} of {lines} answers ({ended:?}); \
                     run it by hand with RUST_LOG=debug to see why"
                )
                .into());
            }
        }
        Ok(())
    }
}

fn pandas_server() -> impl AsRef<OsStr> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/loopback/pandas_server.py")
}
