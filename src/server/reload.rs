//! SIGHUP: what comes from files is read anew.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::state::App;
use super::tls::Tls;

/// Reads keys and certificate at each SIGHUP from now on. Without either the signal keeps its meaning,
/// which is the end of the process.
pub fn on_hangup(app: App, tls: Option<Arc<Tls>>) -> io::Result<()> {
    if app.keys().file().is_none() && tls.is_none() {
        return Ok(());
    }
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let (app, tls) = (app.clone(), tls.clone());
            // Files can hang, on a network for instance.
            if let Err(error) = tokio::task::spawn_blocking(move || reload(&app, tls)).await {
                tracing::error!(%error, "reading keys and certificate anew hit a bug");
            }
        }
    });
    Ok(())
}

fn reload(app: &App, tls: Option<Arc<Tls>>) {
    if app.keys().file().is_some() {
        match app.keys().reload() {
            Ok(()) => tracing::info!("the API keys were read anew"),
            Err(error) => tracing::error!(%error, "the API keys stay as they were"),
        }
    }
    if let Some(tls) = tls {
        match tls.reload() {
            Ok(()) => tracing::info!("the certificate was read anew"),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}
