//! Where PostgreSQL's programs are, and of which version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::settings::PostgresSettings;

/// Where Debian and Ubuntu put each major version: `<here>/<version>/bin`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The directory of the binaries: `bin_dir` if set; else the first directory of `PATH` that has `postgres`; else under
/// /usr/lib/postgresql the version of the data directory, or the newest.
#[must_use]
pub fn directory(settings: &PostgresSettings, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    find(settings, environment, Path::new(DEBIAN))
}

fn find(
    settings: &PostgresSettings,
    environment: &BTreeMap<String, String>,
    debian: &Path,
) -> Option<PathBuf> {
    if let Some(dir) = &settings.bin_dir {
        return Some(dir.clone());
    }
    let postgres = name_of(settings, "postgres");
    let on_path = environment.get("PATH").and_then(|path| {
        std::env::split_paths(path).find(|dir| dir.is_absolute() && dir.join(postgres).is_file())
    });
    on_path.or_else(|| {
        let wanted = data_version(&settings.data_dir);
        let versions = std::fs::read_dir(debian).ok()?.filter_map(|entry| {
            let version: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let dir = debian.join(version.to_string()).join("bin");
            dir.join(postgres)
                .is_file()
                .then_some((Some(version) == wanted, version, dir))
        });
        // The data directory's own version first, then the newest.
        versions
            .max_by_key(|(matches, version, _)| (*matches, *version))
            .map(|(.., dir)| dir)
    })
}

/// The file name of a program, as `bin_name` may rename it.
#[must_use]
pub fn name_of<'a>(settings: &'a PostgresSettings, program: &'a str) -> &'a str {
    settings.bin_name.get(program).map_or(program, String::as_str)
}

/// The major version that `PG_VERSION` of a data directory names; `None` if it is no data directory.
#[must_use]
pub fn data_version(data_dir: &Path) -> Option<u32> {
    std::fs::read_to_string(data_dir.join("PG_VERSION"))
        .ok()?
        .trim()
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// The version that a program prints for `--version`, as PostgreSQL counts (15.18 is 150018).
///
/// # Errors
///
/// If it cannot be run, or prints something else.
pub fn version(program: &Path) -> std::io::Result<u32> {
    let output = std::process::Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| {
        std::io::Error::other(format!(
            "`{} --version` printed `{}`",
            program.display(),
            text.trim().escape_debug()
        ))
    })
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, `16beta2`, `17rc1`.
fn parse_version(text: &str) -> Option<u32> {
    let word = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(word);
    let minor = word[major.len()..]
        .strip_prefix('.')
        .map(digits)
        .unwrap_or_default();
    Some(major.parse::<u32>().ok()? * 10_000 + minor.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_counted_as_postgres_does() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(150_018)
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta2"), Some(180_000));
        assert_eq!(parse_version("psql 9"), None);
    }

    #[test]
    fn the_data_directory_s_version_goes_before_the_newest() {
        let root = tempfile::tempdir().expect("a directory");
        for version in ["13", "15", "9.6", "junk"] {
            let bin = root.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).expect("a directory");
            std::fs::write(bin.join("postgres"), "").expect("a file");
        }
        let (mut settings, _) =
            crate::config::load(None, &crate::config::sample::surroundings("n1")).expect("the sample");
        settings.postgresql.bin_dir = None;
        settings.postgresql.data_dir = root.path().join("data");
        let none = BTreeMap::new();
        assert_eq!(
            find(&settings.postgresql, &none, root.path()),
            Some(root.path().join("15/bin"))
        );
        std::fs::create_dir_all(&settings.postgresql.data_dir).expect("a directory");
        std::fs::write(settings.postgresql.data_dir.join("PG_VERSION"), "13\n").expect("a file");
        assert_eq!(
            find(&settings.postgresql, &none, root.path()),
            Some(root.path().join("13/bin"))
        );
        let path = BTreeMap::from([(
            "PATH".to_owned(),
            root.path().join("9.6/bin").display().to_string(),
        )]);
        assert_eq!(
            find(&settings.postgresql, &path, root.path()),
            Some(root.path().join("9.6/bin"))
        );
    }
}
