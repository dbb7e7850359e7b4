//! The visitor for tests of applications: what it sends, what it keeps, and that it is held to the rules of browsers.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Form, Json};
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Router, http};
use dwell::axum::test::Visitor;
use dwell::axum::{Connection, SessionLayer, SignedIn};
use dwell::web::Exchange;
use dwell::{ErrorKind, ManualClock, Session, SignIn};
use http_body_util::{BodyExt, Full};
use tower_layer::Layer;

use super::*;

fn profiles() -> Vec<SessionLayer> {
    vec![
        SessionLayer::development(sessions()),
        SessionLayer::localhost(sessions()),
        SessionLayer::lan(sessions()),
        SessionLayer::https(sessions(), "app.example").unwrap(),
        SessionLayer::new(Site::https(sessions(), "app.example:8443").unwrap().named("admin").unwrap()),
    ]
}

type Fields = Form<std::collections::BTreeMap<String, String>>;

async fn login(exchange: Exchange, Form(fields): Fields) -> dwell::Result<Redirect> {
    exchange.session_for_sign_in().sign_in(fields["user"].clone())?.await?;
    Ok(Redirect::to("/me"))
}

async fn echo(session: Session, Json(number): Json<u32>) -> dwell::Result<Json<u32>> {
    session.set(VISITS, &number)?;
    Ok(Json(number))
}

fn app(layer: &SessionLayer) -> Router {
    Router::new()
        .route("/me", get(|user: SignedIn| async move { user.principal().to_owned() }))
        .route("/login", post(login))
        .route("/echo", post(echo))
        .route("/leave", post(|user: SignedIn| async move { user.into_session().destroy()?.await }))
        .route("/headers", get(headers))
        .layer(layer.clone())
}

/// What a request said about where it comes from.
async fn headers(method: http::Method, headers: HeaderMap, ConnectInfo(on): ConnectInfo<Connection>) -> String {
    let line = |name: &str| headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    format!(
        "{method} {} {} {} {:?}",
        line("host"),
        line("origin"),
        line("sec-fetch-site"),
        on.local().map(|on| on.ip())
    )
}

#[tokio::test]
async fn every_profile_has_visitors() {
    for layer in profiles() {
        let mut ada = Visitor::new(app(&layer), &layer);
        assert_eq!(ada.get("/me").await.status(), 401);
        let session = ada.sign_in("ada").await.unwrap();
        assert_eq!(ada.get("/me").await.text(), "ada", "{layer:?}");
        assert_eq!(ada.session().unwrap().unwrap().id(), session.id());
        assert_eq!(ada.post_json("/echo", &7).await.json::<u32>(), 7, "{layer:?}");
        assert_eq!(session.get(VISITS).unwrap(), Some(7));
        assert_eq!(ada.post("/leave").await.status(), 200);
        assert_eq!(ada.get("/me").await.status(), 401);
        assert_eq!(session.principal().unwrap_err().kind(), ErrorKind::Gone);

        // Through the application's own form, which knows nothing of visitors.
        let answer = ada.post_form("/login", &[("user", "eve & co")]).await;
        assert_eq!((answer.status(), answer.header("Location")), (StatusCode::SEE_OTHER, Some("/me")), "{answer:?}");
        assert_eq!(ada.get("/me").await.text(), "eve & co", "{layer:?}");
        // A new key: nothing that the visitor kept of the old one is shown.
        ada.session().unwrap().unwrap().rotate().unwrap().blocking_wait().unwrap();
        assert_eq!(ada.get("/me").await.status(), 401, "rotated behind the browser's back");
        ada.sign_in("ada").await.unwrap();
        ada.sign_out().await.unwrap();
        ada.sign_out().await.unwrap();
        assert!(ada.session().unwrap().is_none());
        assert!(ada.request("GET", "/").body(()).unwrap().headers().get("cookie").is_none());
        assert_eq!(layer.site().sessions().of("ada").unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_store_that_is_closed_is_an_error_and_no_panic() {
    for layer in profiles() {
        let mut ada = Visitor::new(app(&layer), &layer);
        ada.sign_in("ada").await.unwrap();
        layer.site().sessions().clone().close().unwrap();
        assert_eq!(ada.session().unwrap_err().kind(), ErrorKind::Closed, "{layer:?}");
        assert_eq!(ada.csrf_token().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(ada.sign_in("eve").await.unwrap_err().kind(), ErrorKind::Closed);
        assert!(format!("{ada:?}").contains("Visitor"));
    }
}

#[tokio::test]
async fn requests_say_where_they_come_from_as_browsers_do() {
    let expected = [
        "GET 127.0.0.1:3000 - same-origin Some(127.0.0.1)",
        "GET 127.0.0.1:3000 - same-origin Some(127.0.0.1)",
        "GET 192.0.2.1:3000 - - Some(192.0.2.1)",
        "GET app.example - same-origin Some(127.0.0.1)",
        "GET app.example:8443 - same-origin Some(127.0.0.1)",
    ];
    for (layer, expected) in profiles().iter().zip(expected) {
        let mut visitor = Visitor::new(app(layer), layer);
        assert_eq!(visitor.get("/headers").await.text(), expected);
        let post = visitor.request("POST", "/").body(()).unwrap();
        let scheme = if expected.contains("app.example") { "https" } else { "http" };
        let host = expected.split(' ').nth(1).unwrap();
        assert_eq!(post.headers()["origin"], format!("{scheme}://{host}"));
    }
}

#[tokio::test]
async fn visitors_do_not_mix_and_are_known_by_their_device() {
    let layer = SessionLayer::lan(sessions());
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    let mut ada = Visitor::new(app(&layer), &layer).header("User-Agent", agent);
    let mut eve = ada.another();
    ada.sign_in("ada").await.unwrap();
    eve.sign_in("eve").await.unwrap();
    assert_eq!((ada.get("/me").await.text(), eve.get("/me").await.text()), ("ada", "eve"));
    let device = layer.site().sessions().of("ada").unwrap().remove(0);
    assert_eq!((&*device.device, &*device.address), ("Firefox on Linux", "192.0.2.7"));
    let mut twin = ada.clone();
    ada.sign_out().await.unwrap();
    assert_eq!((twin.get("/me").await.status().as_u16(), eve.get("/me").await.text()), (401, "eve"));
}

#[tokio::test]
async fn a_visitor_is_held_to_the_rules_of_browsers() {
    for layer in profiles() {
        let mut ada = Visitor::new(app(&layer), &layer);
        ada.sign_in("ada").await.unwrap();
        let leave = || HttpRequest::post("/leave");
        let status = async |ada: &mut Visitor, request: http::request::Builder| {
            ada.send(request.body(Body::empty()).unwrap()).await.status().as_u16()
        };
        assert_eq!(status(&mut ada, leave()).await, 403, "without the page's token");
        let token = || ada.csrf_token().unwrap();
        let header = layer.site().token_field().replace("csrf", "x-csrf-token");
        let with_token = leave().header(&header, token());
        assert_eq!(status(&mut ada, with_token.header("Origin", "http://evil.example")).await, 403);
        let with_token = leave().header(&header, ada.csrf_token().unwrap());
        assert_eq!(status(&mut ada, with_token.header("Sec-Fetch-Site", "cross-site")).await, 403);
        assert_eq!(status(&mut ada, HttpRequest::get("/me").header("Host", "evil.example")).await, 421);
        assert_eq!(ada.get("/me").await.text(), "ada");
    }
}

#[tokio::test]
async fn what_a_visitor_asks_about_itself_is_no_use() {
    let clock = ManualClock::new();
    let options = dwell::Options::new().clock(clock.clone()).manual_workers();
    for layer in
        [SessionLayer::development(options.in_memory().unwrap()), SessionLayer::localhost(options.in_memory().unwrap())]
    {
        let mut ada = Visitor::new(app(&layer), &layer);
        let session = ada.sign_in("ada").await.unwrap();
        clock.advance(Duration::from_secs(60));
        let left = session.idle_left().unwrap();
        ada.session().unwrap().unwrap();
        ada.csrf_token().unwrap();
        let request = ada.request("GET", "/me").body(Body::empty()).unwrap();
        let shown = format!("{ada:?}");
        assert!(!shown.contains("sid_s1") && !shown.contains("sid_k1"), "{shown}");
        assert_eq!(session.idle_left().unwrap(), left);
        ada.send(request).await;
        assert!(session.idle_left().unwrap() > left);
        // Signed out half an hour later.
        clock.advance(Duration::from_secs(30 * 60));
        layer.site().sessions().run_pending();
        assert_eq!(ada.get("/me").await.status(), 401);
        assert_eq!(layer.site().sessions().stats().sessions, 0);
    }
}

#[tokio::test]
async fn only_who_is_remembered_is_still_signed_in_after_a_restart_of_the_browser() {
    let clock = ManualClock::new();
    let layer = SessionLayer::https(dwell::Options::new().clock(clock.clone()).in_memory().unwrap(), HOST).unwrap();
    let mut ada = Visitor::new(app(&layer), &layer);
    ada.sign_in("ada").await.unwrap();
    ada.restart_browser();
    assert_eq!(ada.get("/me").await.status(), 401);
    let day = Duration::from_secs(24 * 60 * 60);
    ada.sign_in(SignIn::new("ada").remembered().limits(day, day)).await.unwrap();
    ada.restart_browser();
    assert_eq!(ada.get("/me").await.text(), "ada");
    clock.advance(day);
    assert!(ada.request("GET", "/").body(()).unwrap().headers().get("cookie").is_none(), "its cookie has ended, too");
}

#[tokio::test]
async fn any_service_can_be_visited_and_an_answer_need_not_end() {
    let layer = SessionLayer::development(sessions());
    let inner = tower::service_fn(|_: HttpRequest<Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from("plain"))))
    });
    assert_eq!(Visitor::new(layer.layer(inner), &layer).get("/").await.bytes(), b"plain");
    let never = std::future::pending::<Option<Result<HeaderMap, std::convert::Infallible>>>;
    let endless = get(move || async move { Body::new(Full::new(Bytes::from("and so on")).with_trailers(never())) });
    let mut visitor = Visitor::new(Router::new().route("/", endless).layer(layer.clone()), &layer);
    let response = visitor.send(HttpRequest::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
}
