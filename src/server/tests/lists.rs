//! Tags, repositories and referrers.

use super::*;

#[tokio::test]
async fn tags_come_sorted_and_in_pages() {
    let registry = Fixture::start().await;
    let reply = registry.get("/v2/a/tags/list").await;
    assert_eq!((reply.status().as_u16(), code(reply).await), (404, "NAME_UNKNOWN".into()));
    for tag in ["c", "a", "b"] {
        registry.image("a", tag, b"layer").await;
    }
    let reply = registry.get("/v2/a/tags/list?n=2").await;
    let link = header(&reply, "link").to_owned();
    assert_eq!(reply.text().await.unwrap(), r#"{"name":"a","tags":["a","b"]}"#);
    let next = link.split_once('>').unwrap().0.trim_start_matches('<');
    let reply = registry.get(next).await;
    assert!(!reply.headers().contains_key("link"));
    assert_eq!(reply.text().await.unwrap(), r#"{"name":"a","tags":["c"]}"#);
    assert_eq!(registry.status(Method::GET, "/v2/a/tags/list?n=x").await, 400);
}

#[tokio::test]
async fn repositories_come_sorted_and_in_pages() {
    let registry = Fixture::start().await;
    assert_eq!(registry.get("/v2/_catalog").await.text().await.unwrap(), r#"{"repositories":[]}"#);
    for name in ["b", "a/b", "a"] {
        registry.image(name, "1", b"layer").await;
    }
    let reply = registry.get("/v2/_catalog?n=2").await;
    let link = header(&reply, "link").to_owned();
    assert_eq!(reply.text().await.unwrap(), r#"{"repositories":["a","a/b"]}"#);
    let next = link.split_once('>').unwrap().0.trim_start_matches('<');
    assert_eq!(registry.get(next).await.text().await.unwrap(), r#"{"repositories":["b"]}"#);
    assert_eq!(registry.status(Method::POST, "/v2/_catalog").await, 405);
}

#[tokio::test]
async fn what_is_about_a_manifest_is_found_from_it() {
    let registry = Fixture::start().await;
    let (config, layer) = (registry.blob("a", b"{}").await, registry.blob("a", b"sbom").await);
    let subject = Digest::of(b"may come later");
    let more = format!(r#","artifactType":"x/sbom","subject":{}"#, descriptor(&subject));
    let referrer = manifest(&config, &layer, &more);
    let path = format!("/v2/a/manifests/{}", Digest::of(referrer.as_bytes()));
    let reply = registry.put(&path, MANIFEST, &referrer).await;
    assert_eq!(header(&reply, "oci-subject"), subject.to_string());
    // Also as the child of an index.
    assert_eq!(registry.put("/v2/a/manifests/1", INDEX, &index_of(&[&referrer])).await.status(), 201);
    let path = format!("/v2/a/referrers/{subject}");
    for (query, found) in [("", 1), ("?artifactType=x%2Fsbom", 1), ("?artifactType=y", 0)] {
        let reply = registry.get(&format!("{path}{query}")).await;
        assert_eq!(header(&reply, "content-type"), INDEX);
        assert_eq!(reply.headers().contains_key("oci-filters-applied"), !query.is_empty());
        let list: serde_json::Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        assert_eq!(list["manifests"].as_array().unwrap().len(), found, "{query}");
    }
    let list = registry.get(&format!("/v2/none/referrers/{subject}")).await.text().await.unwrap();
    assert!(list.contains(r#""manifests":[]"#), "{list}");
}

/// As after a kill, or on a full disk: its bytes were stored, and the list could not be written any more.
#[tokio::test]
async fn what_is_about_a_manifest_is_listed_however_it_came_here() {
    let registry = Fixture::start().await;
    let (config, layer) = (registry.blob("a", b"{}").await, registry.blob("a", b"sbom").await);
    let subject = Digest::of(b"may come later");
    let referrer = manifest(&config, &layer, &format!(r#","subject":{}"#, descriptor(&subject)));
    let stored = registry.blob("a", referrer.as_bytes()).await;
    let reply = registry.put(&format!("/v2/a/manifests/{stored}"), MANIFEST, &referrer).await;
    assert_eq!(header(&reply, "oci-subject"), subject.to_string());
    let list = registry.get(&format!("/v2/a/referrers/{subject}")).await.text().await.unwrap();
    assert!(list.contains(&stored.to_string()), "{list}");
}
