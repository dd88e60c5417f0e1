//! One file for each command.

pub mod demo;
pub mod doctor;
pub mod gen_cert;
pub mod health;
pub mod load;
pub mod merge;
pub mod replay;
pub mod schema;
pub mod send;
pub mod serve;
pub mod token;
