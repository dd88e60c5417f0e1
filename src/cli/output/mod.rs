//! Results in every format: tables, JSON, files, reference pages.

pub(crate) mod columns;
pub(crate) mod demo_summary;
pub(crate) mod format;
pub(crate) mod hgrm;
pub(crate) mod latency_files;
pub(crate) mod lines;
pub(crate) mod load_report;
pub(crate) mod merge_render;
pub(crate) mod options_page;
pub(crate) mod output_files;
pub(crate) mod record_sample;
pub(crate) mod render;
pub(crate) mod results_output;
