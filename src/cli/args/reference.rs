//! Options of `ringest reference`, a hidden command that prints pages of docs/reference.

/// Options of `ringest reference`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReferenceOptions {
    /// Which page
    #[command(subcommand)]
    pub page: ReferencePage,
}

/// A page of docs/reference.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ReferencePage {
    /// Every option of every command, as Markdown
    Options,
}
