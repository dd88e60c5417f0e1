//! `ringest reference`: prints the pages of docs/reference that are made from the program itself.

use crate::cli::args::Args;
use crate::cli::args::reference::{ReferenceOptions, ReferencePage};
use crate::cli::exit::{EXIT_FAILED, EXIT_OK};
use crate::cli::output::options_page::options_page;
use crate::cli::terminal::status_line::say;
use clap::CommandFactory;
use std::io::{self, Write};

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &ReferenceOptions) -> u8 {
    let page = match options.page {
        ReferencePage::Options => options_page(Args::command()),
    };
    let mut out = io::stdout().lock();
    match out.write_all(page.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => EXIT_OK,
        Err(error) => {
            say(format_args!("cannot write to stdout: {error}"));
            EXIT_FAILED
        }
    }
}
