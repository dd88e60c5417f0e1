//! The bodies of the fuzz targets in `fuzz/`. Each takes any bytes, and panics if the code breaks a
//! promise. Unit tests run them over the corpus, so they need neither a fuzzer nor a nightly
//! toolchain.

mod any_schema;
mod auth_file;
mod capture;
mod client_session;
mod cpu_list;
mod histogram;
mod http;
mod input;
mod ndjson;
mod notation;
#[cfg(feature = "aggregate")]
mod partials;
mod reading;
mod records;
mod schema_toml;
mod session;
mod text;
mod tls;

/// The body of a target.
pub type Body = fn(&[u8]);

/// Every target that does without Polars, by the name of its file in `fuzz/fuzz_targets/`.
pub const TARGETS: [(&str, Body); 13] = [
    ("auth_file", auth_file::run),
    ("capture", capture::run),
    ("client_session", client_session::run),
    ("cpu_list", cpu_list::run),
    ("histogram", histogram::run),
    ("http", http::run),
    ("ndjson", ndjson::run),
    ("notation", notation::run),
    ("records", records::run),
    ("schema_toml", schema_toml::run),
    ("session", session::run),
    ("text", text::run),
    ("tls", tls::run),
];

/// Those that read Parquet, which Polars does. They have no file in `fuzz/fuzz_targets/`: a
/// fuzzer's build would have to compile Polars with its instrumentation.
#[cfg(feature = "aggregate")]
pub const PARQUET_TARGETS: &[(&str, Body)] = &[("partials", partials::run)];
/// None without Polars.
#[cfg(not(feature = "aggregate"))]
pub const PARQUET_TARGETS: &[(&str, Body)] = &[];

/// Runs the target of this name.
///
/// # Panics
/// If no target has this name, or if the target finds a fault.
pub fn run(target: &str, data: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    body(data);
}

#[cfg(test)]
mod tests;
