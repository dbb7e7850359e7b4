//! Stories about the demo, told in a real browser. Each starts its own server and its own browsers.

mod account;
mod cache;
mod cookies;
mod forgery;
mod hand_off;
mod live;
mod looks;
mod plain_forms;
mod proxy;
mod restart;
mod rotation;
mod strangers;
mod two_instances;
