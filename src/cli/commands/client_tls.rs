//! TLS of the commands that connect to an engine, from their options.

use crate::cli::args::trust::TrustOptions;
use crate::client::messages::tls::{Identity, Trust, client_config};
use crate::client::messages::transport::ClientTls;
use rustls::pki_types::ServerName;

/// The TLS that is asked for, towards a server of this name; `None` if none is.
///
/// # Errors
/// What is missing or cannot be used.
pub(crate) fn client_tls(
    asked: bool,
    options: &TrustOptions,
    host: &str,
) -> Result<Option<ClientTls>, String> {
    if !asked {
        return Ok(None);
    }
    let trust = match &options.ca {
        Some(path) => Trust::Authorities(path.clone()),
        None if options.insecure => Trust::Anybody,
        None => {
            return Err(
                "--tls needs --ca FILE with the authority of the server's certificate, or \
                 --insecure, which accepts any, for a trial"
                    .to_owned(),
            );
        }
    };
    let identity = match (&options.client_cert, &options.client_key) {
        (Some(certificates), Some(key)) => {
            Some(Identity { certificates: certificates.clone(), key: key.clone() })
        }
        _ => None,
    };
    let config = client_config(&trust, identity.as_ref()).map_err(|error| error.to_string())?;
    let server_name = ServerName::try_from(host.to_owned()).map_err(|error| {
        format!("--host {} is not a valid server name for TLS: {error}", host.escape_default())
    })?;
    Ok(Some(ClientTls { config, server_name }))
}
