use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, reads, refuses, string, strings};
use crate::pack::PackKind::Aws;
use crate::pack::Stability;
use crate::pack::golden::{aws, with};

const STS: &str = "https://sts.amazonaws.com/";

fn subject(sub: &str) -> Value {
    with(&aws(), &["sub"], Some(json!(sub)))
}

#[test]
fn takes_the_principals_name_apart() {
    for (sub, role) in [
        ("arn:aws:iam::123456789012:role/OrdersEtl", string("OrdersEtl")),
        ("arn:aws:iam::123456789012:role/service-role/etl/OrdersEtl", string("OrdersEtl")),
        (
            "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-2/AWSReservedSSO_Admin_c957",
            string("AWSReservedSSO_Admin_c957"),
        ),
        ("arn:aws-us-gov:iam::123456789012:role/OrdersEtl", string("OrdersEtl")),
        ("arn:aws:iam::123456789012:user/people/sam", ClaimValue::Absent),
    ] {
        let claims = subject(sub);
        assert_eq!(reads(Aws, &claims, &["@role_name"]), role, "{sub}");
        assert_eq!(reads(Aws, &claims, &["@account"]), string("123456789012"), "{sub}");
    }
    assert_eq!(reads(Aws, &aws(), &["@partition"]), string("aws"));
    assert_eq!(reads(Aws, &aws(), &["@subject"]), string("arn:aws:iam::123456789012:role/OrdersEtl"));
    for sub in [
        "OrdersEtl",
        "role/OrdersEtl",
        "arn:aws:iam::123456789012",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role//OrdersEtl",
        "arn:aws:iam::123456789012:role/a//b",
        "arn:aws:iam::123456789012:role/a/",
        "arn:aws:iam::123456789012:role/OrdersEtl:x",
        "arn:aws:iam::12345678901:role/OrdersEtl",
        "arn:aws:iam::1234567890123:role/OrdersEtl",
        "arn:aws:iam::12345678901a:role/OrdersEtl",
        "arn:aws:iam:eu-west-1:123456789012:role/OrdersEtl",
        "arn:evil:iam::123456789012:role/OrdersEtl",
        "ARN:aws:iam::123456789012:role/OrdersEtl",
        "x:aws:iam::123456789012:role/OrdersEtl",
    ] {
        refuses(Aws, &subject(sub), TokenFault::ClaimMalformed);
    }
    for sub in [
        "arn:aws:iam::123456789012:root",
        "arn:aws:sts::123456789012:assumed-role/OrdersEtl/session",
        "arn:aws:iam::123456789012:group/OrdersEtl",
        "arn:aws:iam::123456789012:Role/OrdersEtl",
    ] {
        refuses(Aws, &subject(sub), TokenFault::WrongKind);
    }
}

#[test]
fn compares_the_account_in_both_places() {
    let account = |value: &str| with(&aws(), &[STS, "aws_account"], Some(json!(value)));
    accepts(Aws, &account("123456789012"));
    refuses(Aws, &account("123456789013"), TokenFault::ClaimsContradict);
    refuses(Aws, &account("12345678901"), TokenFault::ClaimMalformed);
    refuses(Aws, &subject("arn:aws:iam::210987654321:role/OrdersEtl"), TokenFault::ClaimsContradict);
    refuses(Aws, &with(&aws(), &[STS], None), TokenFault::ClaimMissing);
    refuses(Aws, &with(&aws(), &[STS], Some(json!([]))), TokenFault::ClaimMalformed);
}

#[test]
fn compares_the_partition_with_the_issuer() {
    let china = "https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.amazonwebservices.com.cn";
    let in_china = with(&aws(), &["iss"], Some(json!(china)));
    let arn = Some(json!("arn:aws-cn:iam::123456789012:role/OrdersEtl"));
    accepts(Aws, &with(&in_china, &["sub"], arn.clone()));
    assert_eq!(reads(Aws, &with(&in_china, &["sub"], arn.clone()), &["@partition"]), string("aws-cn"));
    refuses(Aws, &in_china, TokenFault::ClaimsContradict);
    refuses(Aws, &with(&aws(), &["sub"], arn), TokenFault::ClaimsContradict);
}

#[test]
fn marks_what_the_caller_says_of_itself() {
    let stable = |path: &[&str]| Aws.claim(path).unwrap().stable;
    assert_eq!(stable(&[STS, "request_tags", "job-id"]), Stability::CallerAsserted);
    assert_eq!(stable(&[STS, "source_identity"]), Stability::CallerAsserted);
    assert_eq!(stable(&[STS, "principal_tags", "team"]), Stability::Renameable);
    assert_eq!(stable(&[STS, "aws_account"]), Stability::Stable);
    assert!(Aws.claim(&[STS, "principal_tags", "team", "x"]).is_none());

    assert_eq!(reads(Aws, &aws(), &[STS, "request_tags", "job-id"]), string("J-1"));
    assert_eq!(reads(Aws, &aws(), &[STS, "principal_tags", "team"]), string("data"));
    assert_eq!(reads(Aws, &aws(), &[STS, "request_tags", "team"]), ClaimValue::Absent);
    for tags in ["principal_tags", "request_tags"] {
        for wrong in [json!({"team": 1}), json!({"team": null}), json!({"team": "a\u{202e}"}), json!("team")]
        {
            refuses(Aws, &with(&aws(), &[STS, tags], Some(wrong)), TokenFault::ClaimMalformed);
        }
        accepts(Aws, &with(&aws(), &[STS, tags], Some(json!({}))));
        accepts(Aws, &with(&aws(), &[STS, tags], None));
    }
}

#[test]
fn reads_the_organizational_unit_as_a_list() {
    let unit = "o-example1234/r-ab12/ou-ab12-11111111/";
    let path = [STS, "ou_path"];
    assert_eq!(reads(Aws, &aws(), &path), strings(&[unit]));
    assert_eq!(reads(Aws, &with(&aws(), &path, Some(json!(unit))), &path), strings(&[unit]));
}

#[test]
fn says_who_sits_before_it_only_where_the_token_does() {
    let human = |claims: &Value| reads(Aws, claims, &["@human_in_loop"]);
    assert_eq!(human(&aws()), ClaimValue::Boolean(false));
    let plain = with(&aws(), &[STS, "ec2_source_instance_arn"], None);
    assert_eq!(human(&plain), ClaimValue::Unknown);
    let person = with(&plain, &[STS, "identity_store_user_id"], Some(json!("265222f4-f041")));
    assert_eq!(human(&person), ClaimValue::Boolean(true));
    let function = json!("arn:aws:lambda:eu-west-1:123456789012:function:load");
    let function = with(&plain, &[STS, "lambda_source_function_arn"], Some(function));
    assert_eq!(human(&function), ClaimValue::Boolean(false));
}
