//! `payoutd ledger`: what an operator does to a ledger that no service has open.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, Settings, load};
use crate::config::{Ledger, Mistakes, Shared};
use crate::ledger::copy::{self, Equal, Target};
use crate::ledger::migrate::{self, Migrated};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make the ledger's tables, or bring them up to date. For PostgreSQL: run it as their owner.
    Migrate(MigrateArgs),
    /// Copy the ledger's file into an empty PostgreSQL database, prove both equal, and retire the file.
    ///
    /// Needs payoutd stopped. The database gets all rows or none; no payoutd opens the file again. Where it ends
    /// early, run the same command again.
    Copy(OtherArgs),
    /// Prove that the ledger and another one, a file and a database, are equal row for row.
    Compare(OtherArgs),
}

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    settings: Settings,
    /// Then give this PostgreSQL role what `serve` needs, and take everything else from it.
    #[arg(long, value_name = "ROLE")]
    grant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct OtherArgs {
    /// The other ledger, written as ledger.url: postgres://USER@HOST/DATABASE, or, to compare, sqlite:FILE.
    #[arg(long, value_name = "URL")]
    to: String,
    /// A file with the password to it.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Roots that its certificate must come from, PEM [default: the system's].
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Migrate(args) => migrate(args).await,
        Verb::Copy(args) => copy(args).await,
        Verb::Compare(args) => compare(args).await,
    }
}

async fn migrate(args: MigrateArgs) -> Result<(), Failure> {
    let ledger = load(args.settings)?.ledger;
    let role = match (&ledger, args.grant) {
        (Ledger::Embedded { .. }, Some(_)) => {
            return Err(usage("--grant", "is for PostgreSQL: a file has no roles"));
        }
        (Ledger::Shared(shared), Some(role)) => Some((shared, role)),
        (Ledger::Embedded { .. } | Ledger::Shared(_), None) => None,
    };
    let Migrated { from, to } = migrate::migrate(&ledger).await?;
    let done = match from {
        0 => "made".to_owned(),
        from if from == to => "up to date".to_owned(),
        from => format!("brought up to date from version {from}"),
    };
    println!("{}: schema version {to}, {done}", ledger.name());
    if let Some((shared, role)) = role {
        for statement in migrate::grant(shared, &role).await? {
            println!("{statement};");
        }
    }
    Ok(())
}

async fn copy(args: OtherArgs) -> Result<(), Failure> {
    let (one, other) = both(&args)?;
    let (Ledger::Embedded { path, witness, .. }, Ledger::Shared(database)) = (&one, &other) else {
        return Err(usage("--to", "must be a PostgreSQL database, and ledger.url a file"));
    };
    let command = command(&args, path);
    let target = Target { settings: database, url: &args.to, command: &command };
    print(&copy::copy(path, witness.as_deref(), &target).await?);
    println!("{} is retired: let ledger.url name {}", one.name(), other.name());
    Ok(())
}

async fn compare(args: OtherArgs) -> Result<(), Failure> {
    let (one, other) = both(&args)?;
    let pair: Option<(&Path, &Shared)> = match (&one, &other) {
        (Ledger::Embedded { path, .. }, Ledger::Shared(database))
        | (Ledger::Shared(database), Ledger::Embedded { path, .. }) => Some((path, database)),
        (Ledger::Embedded { .. }, Ledger::Embedded { .. })
        | (Ledger::Shared(_), Ledger::Shared(_)) => None,
    };
    let (file, database) =
        pair.ok_or_else(|| usage("--to", "and ledger.url must be a file and a database"))?;
    print(&copy::compare(file, database).await?);
    Ok(())
}

/// The ledger of the settings, and the other one.
fn both(args: &OtherArgs) -> Result<(Ledger, Ledger), Failure> {
    let settings = Settings { config: args.settings.config.clone() };
    let one = load(settings)?.ledger;
    let (password, ca) = (args.password_file.as_deref(), args.tls_ca_file.as_deref());
    Ok((one, Ledger::other(&args.to, password, ca).map_err(Failure::Settings)?))
}

/// What copies the ledger's file in `path` once more, wherever it is typed. It shows no secret: these are in files.
fn command(args: &OtherArgs, path: &Path) -> String {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file = format!("sqlite:{}", whole(path).display());
    let mut command = format!("PAYOUTD_LEDGER__URL={} payoutd ledger copy", quoted(&file));
    for (flag, file) in [
        ("--config", &args.settings.config),
        ("--password-file", &args.password_file),
        ("--tls-ca-file", &args.tls_ca_file),
    ] {
        if let Some(file) = file {
            command.push_str(&format!(" {flag} {}", quoted(&whole(file).display().to_string())));
        }
    }
    format!("{command} --to {}", quoted(&args.to))
}

/// As a shell takes `word` for one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn print(equal: &[Equal]) {
    println!("{:<8}{:>12}", "TABLE", "ROWS");
    for Equal { table, rows } in equal {
        println!("{table:<8}{rows:>12}  equal");
    }
}

fn usage(place: &str, what: &str) -> Failure {
    let mut mistakes = Mistakes::default();
    mistakes.add(place, what);
    Failure::Settings(mistakes)
}
