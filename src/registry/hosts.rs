//! What is known about well-known registries, as data.
//!
//! One table, looked up by host name; whatever it does not list is an ordinary registry. Limits that a
//! registry states itself, or teaches by a 413, are the session's.

/// 1 MiB.
const MIB: u64 = 1 << 20;

/// How a registry host wants its uploads.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a table, no states")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called.
    pub name: &'static str,
    /// Chunks are this large unless somebody says otherwise.
    pub chunk_size: u64,
    /// Chunks may not be larger.
    pub max_chunk: Option<u64>,
    /// All chunks of a session but the last have one size.
    pub equal_parts: bool,
    /// On a fast or far line chunks may be larger than `chunk_size`.
    pub may_grow: bool,
    /// No chunks at all: POST, PUT.
    pub monolithic: bool,
    /// Believes the `Range` header of its answers.
    pub trust_range: bool,
    /// Answers `GET <location>`.
    pub status: bool,
}

impl Profile {
    /// A registry of which nothing is known: it does what the distribution specification says.
    ///
    /// 16 MiB is few enough bytes to lose and many enough to fill a line, and it suits distribution on S3,
    /// which stores parts of 10 MiB and copies the whole blob for a remainder under 5 MiB
    /// (distribution/distribution:registry/storage/driver/s3-aws/s3.go).
    pub const ORDINARY: Self = Self {
        name: "registry",
        chunk_size: 16 * MIB,
        max_chunk: None,
        equal_parts: false,
        may_grow: true,
        monolithic: false,
        trust_range: true,
        status: true,
    };
}

impl Default for Profile {
    fn default() -> Self {
        Self::ORDINARY
    }
}

/// Returns what is known about a host, given with or without its port.
pub fn profile(host: &str) -> Profile {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => &host,
    };
    let name = name.trim_end_matches('.');
    KNOWN.iter().find(|known| known.matches(name)).map_or(Profile::ORDINARY, |known| known.profile)
}

/// A row of the table.
struct Known {
    /// Host names; a `*` stands for any characters, but at least one.
    names: &'static [&'static str],
    profile: Profile,
}

impl Known {
    fn matches(&self, host: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, host))
    }
}

fn matches(pattern: &str, host: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return host == pattern };
    let Some(host) = host.strip_prefix(start) else { return false };
    (1..=host.len()).any(|i| host.get(i..).is_some_and(|host| matches(rest, host)))
}

const KNOWN: &[Known] = &[
    // GHCR refuses a PATCH with Content-Range over 4 MiB by a 416 whose text states the limit:
    // gh:oras-project/rust-oci-client#35, #37, gh:ocx-sh/ocx#237.
    Known {
        names: &["ghcr.io"],
        profile: Profile {
            name: "GitHub Container Registry",
            chunk_size: 4 * MIB,
            max_chunk: Some(4 * MIB),
            may_grow: false,
            ..Profile::ORDINARY
        },
    },
    // Google refuses a second PATCH: gh:dotnet/sdk-container-builds#287, gh:kitops-ml/kitops#777.
    Known {
        names: &["*.pkg.dev", "gcr.io", "*.gcr.io"],
        profile: Profile { name: "Google Artifact Registry", monolithic: true, ..Profile::ORDINARY },
    },
    // ECR wants parts of 5 MiB and more (gh:dotnet/sdk-container-builds#424), answers `Range: 0-10485759`
    // whatever it has stored (gh:aws/containers-roadmap#2831), and every status GET by 404
    // (gh:dotnet/sdk#33019).
    Known {
        names: &[
            "*.dkr.ecr.*.amazonaws.com",
            "*.dkr.ecr.*.amazonaws.com.cn",
            "*.dkr.ecr-fips.*.amazonaws.com",
            "public.ecr.aws",
        ],
        profile: Profile {
            name: "Amazon ECR",
            chunk_size: 10 * MIB,
            may_grow: false,
            trust_range: false,
            status: false,
            ..Profile::ORDINARY
        },
    },
    // ACR's own clients send 4 MiB; a single PUT over about 20 MB was answered by 413: gh:goharbor/harbor#23015.
    Known {
        names: &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"],
        profile: Profile { name: "Azure Container Registry", ..Profile::ORDINARY },
    },
    // Alibaba's `Range` covers only the last chunk: gh:regclient/regclient#627.
    Known {
        names: &["*.aliyuncs.com"],
        profile: Profile {
            name: "Alibaba Cloud Container Registry",
            trust_range: false,
            ..Profile::ORDINARY
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_known_by_name_in_any_case_and_with_any_port() {
        for (host, name) in [
            ("ghcr.io", "GitHub Container Registry"),
            ("GHCR.io:443", "GitHub Container Registry"),
            ("ghcr.io.", "GitHub Container Registry"),
            ("europe-docker.pkg.dev", "Google Artifact Registry"),
            ("gcr.io", "Google Artifact Registry"),
            ("eu.gcr.io", "Google Artifact Registry"),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "Amazon ECR"),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "Amazon ECR"),
            ("public.ecr.aws", "Amazon ECR"),
            ("example.azurecr.io", "Azure Container Registry"),
            ("registry.cn-hangzhou.aliyuncs.com", "Alibaba Cloud Container Registry"),
        ] {
            assert_eq!(profile(host).name, name, "{host}");
        }
    }

    #[test]
    fn everybody_else_is_ordinary() {
        for host in [
            "",
            ":",
            "127.0.0.1:5000",
            "[::1]:5000",
            "docker.io",
            "notghcr.io",
            "ghcr.io.example.org",
            ".pkg.dev",
            "pkg.dev",
            "s3.amazonaws.com",
            "1.dkr.ecr..amazonaws.com",
            "ec2-1-2-3-4.compute.amazonaws.com",
        ] {
            assert_eq!(profile(host), Profile::ORDINARY, "{host}");
        }
    }

    #[test]
    fn the_quirks_are_where_they_belong() {
        assert_eq!(profile("ghcr.io").max_chunk, Some(4 * MIB));
        assert!(profile("us-docker.pkg.dev").monolithic);
        let ecr = profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        assert!(!ecr.status && !ecr.trust_range && ecr.chunk_size == 10 * MIB);
        assert!(!profile("registry.cn-hangzhou.aliyuncs.com").trust_range);
    }
}
