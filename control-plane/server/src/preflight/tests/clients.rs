//! Command lines of `wget`, `kubectl` and `tkn`.

use super::*;

#[test]
fn wget_sends_what_curl_would() {
    let plan = plan(
        "wget -qO- --header=\"Authorization: Bearer $TOKEN\" https://a.example/1\n\
         wget --method=PUT --header 'Content-Type: application/json' --body-data '{\"a\": 1}' -O x https://a.example/2 > log\n\
         wget --post-data='a=b' https://a.example/3\n\
         wget -i urls.txt\n\
         wget https://a.example/4 https://a.example/5\n\
         wget --post-file=x https://a.example/6\n\
         wget https://a.example/$X\n",
    );
    assert_eq!(
        told(&plan),
        ["1: GET https://a.example/1", "2: PUT https://a.example/2", "3: POST https://a.example/3"]
    );
    assert_eq!(plan.requests[1].body, Some(serde_json::json!({"a": 1})));
    let why: Vec<String> = open(&plan).into_iter().map(|(line, _, why)| format!("{line}: {why}")).collect();
    assert_eq!(
        why,
        [
            "4: what `-i` changes about the request is not known",
            "5: exactly one URL is understood",
            "6: what `--post-file` changes about the request is not known",
            "7: what `$X` stands for is not known",
        ]
    );
}

const RUN: &str = "kind: PipelineRun\nmetadata: {generateName: r-}\nspec: {pipelineRef: {name: release}}\n";

#[test]
fn kubectl_creates_what_its_here_document_says() {
    let manifest =
        format!("apiVersion: tekton.dev/v1\n{RUN}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n");
    let script = format!("kubectl create -n ci -f - <<'EOF'\n{manifest}EOF\ncurl https://a.example/1\n");
    let made = plan(&script);
    assert_eq!(
        told(&made),
        [
            "1: POST https://kubernetes.default.svc/apis/tekton.dev/v1/namespaces/ci/pipelineruns",
            "1: POST https://kubernetes.default.svc/api/v1/namespaces/ci/secrets",
            "11: GET https://a.example/1",
        ]
    );
    let body = made.requests[0].body.as_ref().unwrap();
    assert_eq!(body.pointer("/spec/pipelineRef/name").unwrap(), "release");
    assert!(
        open(&made)
            .iter()
            .any(|(line, text, why)| *line == 1 && text == "kubectl" && why.contains("/openapi"))
    );

    let applied = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ci}\n";
    let made = plan(&format!("kubectl apply --filename=- <<EOF\n{applied}EOF\n"));
    assert_eq!(told(&made), ["1: GET https://kubernetes.default.svc/api/v1/namespaces/ci/secrets/s"]);
    assert!(open(&made)[0].2.contains("POST") && open(&made)[0].2.contains("PATCH"), "{:?}", open(&made));
}

#[test]
fn what_kubectl_would_send_is_not_guessed() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    for (script, why) in [
        ("kubectl create -f run.yaml\n".to_owned(), "give that file to `tidegate preflight`"),
        ("kubectl version; cat x | kubectl create -f -\n".to_owned(), "only a here-document is"),
        (format!("kubectl create -f - <<EOF\n{secret}EOF\n"), "in which namespace is not said"),
        (
            format!("kubectl create -n a -f - <<EOF\n{secret}data: {{a: $X}}\nEOF\n"),
            "stands for is not known",
        ),
        (
            format!("kubectl create -n a -f - <<EOF\n{}EOF\n", secret.replace("Secret", "Gadget")),
            "`Gadget` of `v1`",
        ),
        (
            format!("kubectl create -n a -f - <<EOF\n{}EOF\n", secret.replace("s}", "s, namespace: b}")),
            "two namespaces",
        ),
        (
            format!("kubectl apply -n a -f - <<EOF\n{}EOF\n", secret.replace("name:", "generateName:")),
            "needs `metadata.name`",
        ),
        (format!("kubectl create --dry-run=client -n a -f - <<EOF\n{secret}EOF\n"), "`--dry-run`"),
        ("kubectl create -n a -f - <<EOF\n{\nEOF\n".to_owned(), "no YAML"),
        ("kubectl delete pod x\n".to_owned(), "only `create -f` and `apply -f`"),
        ("kubectl create -f $FILE\n".to_owned(), "`$FILE`"),
    ] {
        let made = plan(&script);
        assert_eq!(told(&made), [""; 0], "{script}");
        assert!(
            open(&made).iter().any(|(line, _, told)| *line == 1 && told.contains(why)),
            "{script}: {:?}",
            open(&made)
        );
    }
}

#[test]
fn tkn_reads_the_pipeline_and_creates_a_run() {
    let hints = Hints { namespace: Some("ci".to_owned()), ..hints() };
    let made = read("tkn pipeline start release -s deployer -p ref=main --showlog\n", &hints).unwrap();
    let base = "https://kubernetes.default.svc/apis/tekton.dev/v1/namespaces/ci";
    assert_eq!(
        told(&made),
        [format!("1: GET {base}/pipelines/release"), format!("1: POST {base}/pipelineruns")]
    );
    assert_eq!(
        made.requests[1].body.as_ref().unwrap(),
        &serde_json::json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "release-run-"},
            "spec": {"pipelineRef": {"name": "release"}, "params": [{"name": "ref", "value": "main"}],
                     "taskRunTemplate": {"serviceAccountName": "deployer"}},
        })
    );
    for (script, why) in [
        ("tkn pipeline start release -p refs=a,b -n ci\n", "a text or a list"),
        ("tkn pipeline start release -w name=x,emptyDir= -n ci\n", "`--w`"),
        ("tkn pipeline start release --last -n ci\n", "`--last`"),
        ("tkn task start build -n ci\n", "only `pipeline start NAME`"),
        ("tkn pipeline start release\n", "in which namespace"),
    ] {
        let made = plan(script);
        assert_eq!(told(&made), [""; 0], "{script}");
        assert!(open(&made).iter().any(|(_, _, told)| told.contains(why)), "{script}: {:?}", open(&made));
    }
}
