//! Results in every format: tables, JSON, files, reference pages.

pub(crate) mod columns;
#[cfg(feature = "aggregate")]
pub(crate) mod demo_summary;
pub(crate) mod format;
pub(crate) mod hgrm;
#[cfg(feature = "aggregate")]
pub(crate) mod latency_files;
#[cfg(feature = "aggregate")]
pub(crate) mod lines;
#[cfg(feature = "aggregate")]
pub(crate) mod load_report;
#[cfg(feature = "aggregate")]
pub(crate) mod merge_render;
pub(crate) mod options_page;
#[cfg(feature = "aggregate")]
pub(crate) mod output_files;
pub(crate) mod record_sample;
#[cfg(feature = "aggregate")]
pub(crate) mod render;
#[cfg(feature = "aggregate")]
pub(crate) mod results_output;
