use stead_sdk::Code;
use stead_sdk::testing::{ValueScenario, WorkflowScenario};
use stead_sdk::workflow::v1::State;

use super::*;
use api::{CheckoutClient, GetOrder, Shipped};

fn order(cents: u64) -> Order {
    let (order_id, customer, sku) = ("o-1".into(), "ada".into(), "kettle".into());
    Order { order_id, customer, sku, quantity: 2, cents, address: "12 St James's Square".into() }
}

fn approval(approved: bool) -> Approval {
    Approval { order_id: "o-1".into(), approved }
}

/// A shop in which all goes well.
fn shop() -> WorkflowScenario<Purchase> {
    WorkflowScenario::new(Checkout::<Purchase>(), "o-1")
        .answering(StockClient::reserve, |_| Ok(()))
        .answering(AccountClient::charge, |_| Ok(()))
        .answering(ShippingClient::ship, |_| Ok(Shipped { tracking: "t-1".into() }))
        .answering(StockClient::release, |_| Ok(()))
        .answering(AccountClient::refund, |_| Ok(()))
}

#[test]
fn an_order_is_reserved_paid_and_shipped() {
    let mut flow = shop();
    flow.send(CheckoutClient::place(order(5_000))).unwrap();
    assert_eq!(flow.result(), Receipt { order_id: "o-1".into(), tracking: "t-1".into() });
    assert_eq!(flow.calls(), ["Reserve", "Charge", "Ship"]);
}

#[test]
fn an_order_that_cannot_be_shipped_is_undone() {
    let mut flow = shop().answering(ShippingClient::ship, |_| {
        Err(Rejection::new(Code::InvalidArgument, "no such address"))
    });
    flow.send(CheckoutClient::place(order(5_000))).unwrap();
    assert_eq!(flow.calls(), ["Reserve", "Charge", "Ship", "Refund", "Release"]);
    let status = flow.send(CheckoutClient::get(GetOrder { order_id: "o-1".into() })).unwrap();
    assert_eq!((status.state(), &*status.message), (State::Failed, "no such address"));
    assert_eq!(status.compensated, ["charge", "reserve"]);
}

#[test]
fn a_shipper_who_is_away_is_asked_again() {
    let mut away = 2;
    let mut flow = shop().answering(ShippingClient::ship, move |_| {
        if away > 0 {
            away -= 1;
            return Err(Rejection::new(Code::Unavailable, "away"));
        }
        Ok(Shipped { tracking: "t-2".into() })
    });
    flow.send(CheckoutClient::place(order(5_000))).unwrap();
    flow.advance(Duration::from_secs(3));
    assert_eq!(flow.result().tracking, "t-2");
    assert_eq!(flow.calls(), ["Reserve", "Charge", "Ship", "Ship", "Ship"]);
}

#[test]
fn a_large_order_waits_for_its_approval() {
    let mut flow = shop();
    flow.send(CheckoutClient::place(order(100_001))).unwrap();
    assert_eq!(flow.status().waiting_for, ["Approve"]);
    assert!(flow.calls().is_empty());
    flow.send(CheckoutClient::approve(approval(true))).unwrap();
    assert_eq!(flow.status().state(), State::Completed);
}

#[test]
fn a_large_order_that_is_not_approved_does_nothing() {
    for (signal, code) in [(Some(false), Code::PermissionDenied), (None, Code::DeadlineExceeded)] {
        let mut flow = shop();
        flow.send(CheckoutClient::place(order(100_001))).unwrap();
        match signal {
            Some(approved) => drop(flow.send(CheckoutClient::approve(approval(approved)))),
            None => flow.advance(DAY),
        }
        assert_eq!(flow.status().code, code as u32);
        assert!(flow.calls().is_empty());
    }
}

#[test]
fn what_is_reserved_twice_is_taken_once_and_can_be_released() {
    let reserve = || Reserve { sku: "kettle".into(), order_id: "o-1".into(), quantity: 2 };
    let shelf = |available, reserved: &[(&str, u32)]| Shelf {
        available,
        reserved: reserved.iter().map(|&(order, quantity)| (order.into(), quantity)).collect(),
    };
    ValueScenario::<Shelf>::new("kettle")
        .given(shelf(3, &[]))
        .when(Shelf::reserve, reserve())
        .then_updated(shelf(1, &[("o-1", 2)]))
        .and()
        .when(Shelf::reserve, reserve())
        .then_unchanged()
        .and()
        .when(Shelf::reserve, Reserve { order_id: "o-2".into(), ..reserve() })
        .then_rejected(Code::FailedPrecondition)
        .and()
        .when(Shelf::release, Release { sku: "kettle".into(), order_id: "o-1".into() })
        .then_updated(shelf(3, &[]));
}
