//! Starts the receivers that are compared and reads what they answer: sends them nothing and judges
//! no answer.

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

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The engine's own runtime and reads, bytes dropped.
    Drain,
    /// `ringest serve`.
    Ingest,
    /// Blocking reads, bytes dropped.
    Blocking,
    /// numpy + pandas, what each read brought by itself.
    Pandas,
    /// The same, of more bytes at a time.
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

    /// Whether it is sent a fraction of what the others are: rates are compared.
    pub fn is_slow(self) -> bool {
        matches!(self, Kind::Pandas | Kind::PandasGathering)
    }

    /// Whether it answers with groups, not with a number of bytes.
    pub fn aggregates(self) -> bool {
        !matches!(self, Kind::Drain | Kind::Blocking)
    }
}

/// A running receiver, ended when it is dropped.
pub struct Server {
    /// Who it is.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Every receiver that a shape is sent to.
    ///
    /// # Errors
    /// Where one does not start.
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

    /// This benchmark itself, as a drain.
    fn drain(options: &Options, kind: Kind, drain: Drain) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(&options.server_core.to_string(), std::env::current_exe()?);
        let drain = drain.to_possible_value().expect("every drain has a name");
        command.args(["--receive", drain.get_name()]);
        command.args(["--buffer-bytes", &options.buffer_bytes.to_string()]);
        Self::start(kind, command)
    }

    /// `ringest serve` with one worker.
    fn serve(
        options: &Options,
        kind: Kind,
        program: &OsStr,
        shape: &Shape,
    ) -> Result<Self, Box<dyn Error>> {
        let core = options.server_core.to_string();
        // Threads inherit the mask of the process; the worker alone then pins itself.
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
    /// Where it is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.process.cpu()
    }

    /// Reads so many lines of answers, one for each connection that has ended.
    ///
    /// # Errors
    /// Where it ends before that.
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
                     with RUST_LOG=debug and by hand it says more"
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
