use super::*;

#[test]
fn every_link_leads_somewhere() {
    let pages = pages().unwrap();
    for page in &pages {
        let folder = page.path.parent().unwrap();
        for link in &page.links {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                page.path.clone()
            } else {
                folder.join(path)
            };
            let found = shell::root().join(&target).exists();
            assert!(found, "{}: {link}", page.path.display());
            if anchor.is_empty() {
                continue;
            }
            let same = |other: &&Page| {
                let real = |path: &Path| shell::root().join(path).canonicalize().ok();
                real(&other.path) == real(&target)
            };
            let known = pages
                .iter()
                .find(same)
                .is_some_and(|p| p.anchors.iter().any(|a| a == anchor));
            assert!(known, "{}: no heading for {link}", page.path.display());
        }
    }
}

#[test]
fn every_page_is_in_the_book() {
    let pages = pages().unwrap();
    let summary = pages
        .iter()
        .find(|page| page.path.ends_with("SUMMARY.md"))
        .unwrap();
    let missing: Vec<_> = pages
        .iter()
        .filter(|page| page.path.starts_with("docs") && !page.path.ends_with("SUMMARY.md"))
        .filter(|page| {
            let name = page.path.file_name().unwrap().to_str().unwrap();
            !summary.links.iter().any(|link| link == name)
        })
        .map(|page| page.path.display())
        .collect();
    assert!(
        missing.is_empty(),
        "docs/SUMMARY.md does not link {missing:?}"
    );
}

#[test]
fn code_links_and_anchors_of_a_page() {
    let text = "# A `b`, c!\n\n[x](y.md#z) ![p](q.png)\n\n```sh\none\n```\n\n    two\n\ntext `trainer fit`\n";
    let page = Page::new(Path::new("docs/x.md"), text);
    assert_eq!(page.anchors, ["a-b-c"]);
    assert_eq!(page.links, ["y.md#z", "q.png"]);
    let code = |block: Option<&str>, text: &str| Code {
        block: block.map(String::from),
        text: text.into(),
    };
    let expected = [
        code(None, "b"),
        code(Some("sh"), "one\n"),
        code(Some(""), "two\n"),
        code(None, "trainer fit"),
    ];
    assert_eq!(page.code, expected);
}
