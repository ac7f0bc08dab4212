//! From one manifest or index to everything that belongs to it, in the order in which it is pushed.
//!
//! Children and attestations come before the index that names them, each digest once, however many paths lead
//! to it. What the source names and does not hold is listed: the destination may have it. For one platform
//! out of an index, that child takes the index's place.

use std::collections::HashMap;

use super::{
    Missing, Source,
    documents::{check_limits, read_manifest},
    platforms::pick,
};
use crate::{
    blob::mismatch,
    error::{Error, Result},
    oci::{Content, Descriptor, Digest, Manifest, Platform},
};

/// A manifest or index with all that it leads to.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The documents, each once, children before their index; the last one is the root.
    pub manifests: Vec<Manifest>,
    /// The children that are named and not held.
    pub missing: Vec<Descriptor>,
}

impl Tree {
    /// Returns the document that everything else belongs to.
    pub fn root(&self) -> &Manifest {
        self.manifests.last().expect("a tree is made of its root")
    }
}

/// Reads the documents that belong to `root`, or to the one image in it that is for `platform`.
pub fn resolve(source: &dyn Source, root: &Descriptor, platform: Option<&Platform>) -> Result<Tree> {
    let root = match platform {
        Some(wanted) => &pick(source, root, wanted)?,
        None => root,
    };
    let mut walk = Walk {
        source,
        seen: HashMap::new(),
        bytes: 0,
        tree: Tree { manifests: Vec::new(), missing: Vec::new() },
    };
    walk.visit(root, 0).map_err(|error| error.while_doing(format!("reading {}", source.name())))?;
    Ok(walk.tree)
}

/// All documents of a tree are held at once until it is pushed.
const BYTES_LIMIT: u64 = 64 << 20;

struct Walk<'a> {
    source: &'a dyn Source,
    /// With the size that its descriptor gave.
    seen: HashMap<Digest, u64>,
    bytes: u64,
    tree: Tree,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        match self.seen.insert(descriptor.digest.clone(), descriptor.size) {
            None => {}
            Some(size) if size == descriptor.size => return Ok(()),
            Some(size) => {
                return Err(mismatch(&descriptor.digest.to_string(), descriptor, size, &descriptor.digest));
            }
        }
        check_limits(depth, self.seen.len())?;
        let manifest = match read_manifest(self.source, descriptor) {
            Err(error) if depth > 0 && Missing::is_cause_of(&error) => {
                self.tree.missing.push(descriptor.clone());
                return Ok(());
            }
            read => read?,
        };
        self.bytes += manifest.bytes.len() as u64;
        if self.bytes > BYTES_LIMIT {
            return Err(Error::source(format!(
                "the manifests of this image are over the limit of {BYTES_LIMIT} bytes"
            )));
        }
        if let Content::Index { manifests } = &manifest.content {
            for child in manifests {
                self.visit(child, depth + 1)?;
            }
        }
        self.tree.manifests.push(manifest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        error::{ErrorKind, chain},
        source::{
            Data, Image, Layer,
            documents::{DEPTH_LIMIT, read_config},
        },
    };

    /// Documents and configs by digest.
    #[derive(Default)]
    struct Documents(HashMap<Digest, Bytes>);

    impl Documents {
        fn put(&mut self, text: String) -> Descriptor {
            let digest = Digest::of(text.as_bytes());
            let size = text.len() as u64;
            self.0.insert(digest.clone(), text.into());
            Descriptor { media_type: None, ..Descriptor::new("", digest, size) }
        }

        fn index(&mut self, children: &[Descriptor]) -> Descriptor {
            let children: Vec<String> = children.iter().map(written).collect();
            self.put(format!(r#"{{"manifests":[{}]}}"#, children.join(",")))
        }

        fn image(&mut self, platform: &str) -> Descriptor {
            let (os, architecture) = platform.split_once('/').unwrap();
            let config = format!(r#"{{"os":"{os}","architecture":"{architecture}","rootfs":{{}}}}"#);
            let config = written(&self.put(config));
            self.put(format!(r#"{{"config":{config},"layers":[]}}"#))
        }
    }

    impl Source for Documents {
        fn name(&self) -> String {
            "documents".into()
        }

        fn images(&self) -> Result<Vec<Image>> {
            Ok(Vec::new())
        }

        fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
            self.0.get(&descriptor.digest).cloned().ok_or_else(|| Error::source("missing").because(Missing))
        }

        fn open(&self, layer: &Layer) -> Result<Data> {
            let bytes = self.document(layer.descriptor.as_ref().unwrap())?;
            Ok(Data::Stream(Box::new(std::io::Cursor::new(bytes))))
        }
    }

    fn written(descriptor: &Descriptor) -> String {
        let platform = descriptor.platform.as_ref().map_or_else(String::new, |platform| {
            format!(r#","platform":{}"#, serde_json::to_string(platform).unwrap())
        });
        format!(r#"{{"digest":"{}","size":{}{platform}}}"#, descriptor.digest, descriptor.size)
    }

    fn on(platform: &str, descriptor: &Descriptor) -> Descriptor {
        Descriptor { platform: Some(platform.parse().unwrap()), ..descriptor.clone() }
    }

    fn order(tree: &Tree) -> Vec<&Digest> {
        tree.manifests.iter().map(|manifest| &manifest.digest).collect()
    }

    #[test]
    fn children_come_before_their_index_and_once() {
        let mut documents = Documents::default();
        let (one, two) = (documents.image("linux/amd64"), documents.image("linux/arm64"));
        let inner = documents.index(&[one.clone(), one.clone()]);
        let root = documents.index(&[two.clone(), inner.clone(), one.clone()]);
        let tree = resolve(&documents, &root, None).unwrap();
        assert_eq!(order(&tree), [&two.digest, &one.digest, &inner.digest, &root.digest]);
        assert_eq!(tree.root().digest, root.digest);
        documents.0.remove(&one.digest);
        let tree = resolve(&documents, &root, None).unwrap();
        assert_eq!(order(&tree), [&two.digest, &inner.digest, &root.digest]);
        assert_eq!(tree.missing, [one]);
        documents.0.remove(&root.digest);
        assert!(Missing::is_cause_of(&resolve(&documents, &root, None).unwrap_err()));
    }

    #[test]
    fn a_manifest_that_is_named_twice_has_one_size() {
        let mut documents = Documents::default();
        let one = documents.image("linux/amd64");
        let root = documents.index(&[one.clone(), Descriptor { size: one.size + 1, ..one }]);
        assert!(chain(&resolve(&documents, &root, None).unwrap_err()).contains("size mismatch"));
    }

    #[test]
    fn many_paths_are_quick_and_deep_ones_an_error() {
        let mut documents = Documents::default();
        let mut root = documents.image("linux/amd64");
        for depth in 1..=DEPTH_LIMIT + 1 {
            root = documents.index(&vec![root; 10]);
            let tree = resolve(&documents, &root, None);
            match tree {
                Ok(tree) => assert!(depth <= DEPTH_LIMIT && tree.manifests.len() == depth + 1),
                Err(error) => assert!(depth > DEPTH_LIMIT && chain(&error).contains("limit"), "{error:?}"),
            }
        }
        assert!(resolve(&documents, &root, Some(&"a/b".parse().unwrap())).is_err());
    }

    #[test]
    fn what_is_no_manifest_hides_no_platform() {
        let mut documents = Documents::default();
        let amd64 = documents.image("linux/amd64");
        let page = Descriptor { media_type: Some("application/xml".into()), ..documents.put("<x/>".into()) };
        let entry = written(&page).replacen('{', r#"{"mediaType":"application/xml","#, 1);
        let root = documents.put(format!(r#"{{"manifests":[{entry},{}]}}"#, written(&amd64)));
        let tree = resolve(&documents, &root, Some(&"linux/amd64".parse().unwrap())).unwrap();
        assert_eq!(tree.root().digest, amd64.digest);
    }

    #[test]
    fn of_several_variants_the_usual_one_is_meant() {
        let mut documents = Documents::default();
        let [v5, v7, other] = ["linux/arm", "linux/arm64", "linux/386"].map(|name| documents.image(name));
        let root = documents.index(&[on("linux/arm/v5", &v5), on("linux/arm/v7", &v7)]);
        let found = |root: &Descriptor, platform: &str| {
            resolve(&documents, root, Some(&platform.parse().unwrap())).unwrap().root().digest.clone()
        };
        assert_eq!(found(&root, "linux/arm"), v7.digest);
        assert_eq!(found(&root, "linux/arm/v5"), v5.digest);
        let root = documents.index(&[on("linux/amd64/v3", &other), on("linux/arm/v5", &v5)]);
        let found = |platform: &str| {
            resolve(&documents, &root, Some(&platform.parse().unwrap())).unwrap().root().digest.clone()
        };
        assert_eq!([found("linux/arm"), found("linux/amd64")], [v5.digest.clone(), other.digest.clone()]);
    }

    #[test]
    fn one_platform_is_found_wherever_it_is() {
        let mut documents = Documents::default();
        let (amd64, arm64) = (documents.image("linux/amd64"), documents.image("linux/arm64"));
        let s390x = documents.image("linux/s390x");
        let attestation = documents.image("unknown/unknown");
        let inner = documents.index(std::slice::from_ref(&s390x));
        let root = documents.index(&[
            on("unknown/unknown", &attestation),
            on("linux/amd64", &amd64),
            on("linux/arm64/v8", &arm64),
            inner,
        ]);
        let found = |root: &Descriptor, platform: &str| {
            resolve(&documents, root, Some(&platform.parse().unwrap())).map(|tree| tree.root().digest.clone())
        };
        assert_eq!(found(&root, "linux/amd64").unwrap(), amd64.digest);
        assert_eq!(found(&root, "linux/arm64").unwrap(), arm64.digest);
        assert_eq!(found(&root, "linux/s390x").unwrap(), s390x.digest);
        assert_eq!(found(&amd64, "linux/amd64").unwrap(), amd64.digest);
        for (root, hint) in
            [(&root, "it is for linux/amd64, linux/arm64/v8, linux/s390x"), (&amd64, "it is for linux/amd64")]
        {
            for platform in ["windows/amd64", "unknown/unknown"] {
                let error = found(root, platform).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Usage);
                assert_eq!(error.hints(), [hint]);
            }
        }
    }

    #[test]
    fn a_config_is_checked_before_it_is_believed() {
        let mut documents = Documents::default();
        let config = documents.put("{}".into());
        assert_eq!(read_config(&documents, &config).unwrap(), "{}");
        documents.0.insert(config.digest.clone(), "[]".into());
        assert!(chain(&read_config(&documents, &config).unwrap_err()).contains("digest mismatch"));
    }
}
