//! Content discovery: tags in order and in pages, referrers of what is not there.

use longshore::oci::Digest;
use serde_json::{Value, json};

use super::{Registry, code};
use crate::{support::raw::Reply, wire::image::INDEX};

fn tags(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let list: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(list["name"], "a/b");
    list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

cases! {
    tags_come_in_order_and_in_pages;
    a_repository_without_tags_lists_none;
    what_has_no_referrers_has_an_empty_list_of_them;
}

cases_of_a_gateway! {
    what_has_no_referrers_has_an_empty_list_of_them;
}

fn tags_come_in_order_and_in_pages(registry: &Registry) {
    let reply = registry.get("/v2/a/b/tags/list");
    assert_eq!((reply.status, &*code(&reply)), (404, "NAME_UNKNOWN"));
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    let sorted = ["1", "10", "2", "A", "_", "a", "b.c-d"];
    for tag in ["b.c-d", "a", "2", "10", "_", "A", "1"] {
        assert_eq!(registry.manifest("a/b", tag, INDEX, index.as_bytes()).status, 201);
    }
    assert_eq!(tags(&registry.get("/v2/a/b/tags/list")), sorted);
    for most in 1..=sorted.len() + 1 {
        let (mut found, mut target) = (Vec::new(), format!("/v2/a/b/tags/list?n={most}"));
        loop {
            let reply = registry.get(&target);
            let page = tags(&reply);
            assert!(page.len() <= most);
            found.extend(page.clone());
            let Some(link) = reply.header("Link") else { break };
            assert_eq!(page.len(), most);
            let (next, relation) = link.split_once('>').unwrap();
            assert_eq!(relation, "; rel=\"next\"");
            next.trim_start_matches('<').clone_into(&mut target);
        }
        assert_eq!(found, sorted, "{most}");
    }
    let none = registry.get("/v2/a/b/tags/list?n=0");
    assert_eq!((tags(&none).len(), none.header("Link")), (0, None));
    for (at, last) in sorted.iter().enumerate() {
        assert_eq!(tags(&registry.get(&format!("/v2/a/b/tags/list?last={last}"))), sorted[at + 1..]);
        let page = tags(&registry.get(&format!("/v2/a/b/tags/list?n=2&last={last}")));
        assert_eq!(page, sorted[at + 1..sorted.len().min(at + 3)]);
    }
    // A name that is no tag has its place in the order too.
    assert_eq!(tags(&registry.get("/v2/a/b/tags/list?last=3")), sorted[3..]);
}

fn a_repository_without_tags_lists_none(registry: &Registry) {
    let digest = Digest::of(b"{}");
    assert_eq!(registry.blob("a/b", &digest, b"{}").status, 201);
    assert!(tags(&registry.get("/v2/a/b/tags/list")).is_empty());
}

fn what_has_no_referrers_has_an_empty_list_of_them(registry: &Registry) {
    let digest = Digest::of(b"nothing");
    for query in ["", "?artifactType=x%2Fy"] {
        let reply = registry.get(&format!("/v2/a/referrers/{digest}{query}"));
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some(INDEX)));
        let list: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(list, json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }));
    }
    let reply = registry.get("/v2/a/referrers/sha256:0");
    assert_eq!((reply.status, &*code(&reply)), (400, "DIGEST_INVALID"));
}
