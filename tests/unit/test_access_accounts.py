"""Passwords, guesses, registration and invites: who gets in by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from masuka.access import password as passwords
from masuka.access.accounts import MINUTES_15_S, Accounts
from masuka.access.limits import MOST_KEYS, Rate, Throttle
from masuka.access.links import digest
from masuka.access.password import Passwords, clean_password, generate, owner_has_one
from masuka.access.sessions import Sessions
from masuka.config import Settings, Workspace
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound
from masuka.requests import Actor
from masuka.requests.people import clean_username
from masuka.store import audit, users
from masuka.studio import Studio

OWNER = Actor(1)
CHEAP = {"memory_kib": 8, "time_cost": 1, "parallelism": 1}
RIGHT = "correct horse battery"
HOME = "203.0.113.7"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Counted(Passwords):
    """Real passwords that count how often one was looked at."""

    def __init__(self) -> None:
        super().__init__(**CHEAP)
        self.looked = 0

    def check(self, password: str, stored: str | None) -> bool:
        self.looked += 1
        return super().check(password, stored)


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hasher() -> Counted:
    return Counted()


@pytest.fixture
def accounts(studio: Studio, clock: Clock, hasher: Counted) -> Accounts:
    return Accounts(
        studio.store, hasher, Throttle(5, MINUTES_15_S, clock), Throttle(20, MINUTES_15_S, clock)
    )


def add(accounts: Accounts, name: str, **more: object) -> int:
    return users.add_user(
        accounts.store, actor=OWNER, username=name, password_hash=accounts.passwords.hash(RIGHT), **more  # type: ignore[arg-type]
    ).id


def test_a_right_password_gets_in_and_a_wrong_one_does_not(accounts: Accounts) -> None:
    kim = add(accounts, "kim", email="kim@example.org")
    assert accounts.sign_in("kim", RIGHT, address=HOME).user_id == kim
    assert accounts.sign_in("KIM", RIGHT, address=HOME).user_id == kim
    assert accounts.sign_in(" kim@example.org ", RIGHT, address=HOME).user_id == kim
    for name, wrong in (("kim", RIGHT.upper()), ("kim", ""), ("lee", RIGHT), ("", RIGHT), ("kim\0", "x")):
        assert accounts.sign_in(name, wrong, address=HOME).user_id is None


def test_who_is_locked_out_or_has_no_password_does_not_get_in(accounts: Accounts) -> None:
    kim = add(accounts, "kim")
    users.set_user(accounts.store, actor=OWNER, id=kim, active=False)
    assert accounts.sign_in("kim", RIGHT, address=HOME).user_id is None
    assert accounts.sign_in("owner", "", address=HOME).user_id is None


def test_of_ten_thousand_guesses_five_are_looked_at_and_the_owner_gets_in_after(
    accounts: Accounts, clock: Clock, hasher: Counted
) -> None:
    kim = add(accounts, "kim")
    for number in range(10_000):
        verdict = accounts.sign_in("kim", f"guess {number}", address=f"198.51.100.{number % 250}")
        assert verdict.user_id is None and (verdict.wait_s > 0) is (number >= 5)
    assert hasher.looked == 5
    assert accounts.sign_in("kim", RIGHT, address=HOME).wait_s > 0
    clock.now += MINUTES_15_S + 1
    assert accounts.sign_in("kim", RIGHT, address=HOME).user_id == kim


def test_of_ten_thousand_guesses_from_one_address_twenty_are_looked_at(
    accounts: Accounts, hasher: Counted
) -> None:
    for number in range(10_000):
        accounts.sign_in(f"person {number}", "guess", address=HOME)
    assert hasher.looked == 20


def test_guesses_at_once_are_counted_before_they_are_looked_at(accounts: Accounts, hasher: Counted) -> None:
    add(accounts, "kim")
    start = threading.Barrier(16)

    def guess() -> None:
        start.wait()
        accounts.sign_in("kim", "guess", address=HOME)

    threads = [threading.Thread(target=guess) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hasher.looked == 5


def test_names_are_read_as_they_were_written_at_registering(accounts: Accounts) -> None:
    ann = add(accounts, "ann lee")
    for typed in ("ann lee", " Ann  Lee ", "ａnn\tlee", "ann\u00a0lee", "ann\u200b lee"):
        assert accounts.sign_in(typed, RIGHT, address=HOME).user_id == ann, typed


def test_a_name_that_nobody_has_is_not_written_down(studio: Studio, accounts: Accounts) -> None:
    add(accounts, "kim")
    accounts.sign_in("my secret password", "", address=HOME)
    accounts.sign_in("KIM", "wrong", address=HOME)
    assert [(e.name, e.user_id is None) for e in studio.people.audit(limit=2)] == [("kim", False), ("somebody", True)]


def test_registering_has_its_own_limit(accounts: Accounts) -> None:
    accounts.registration = True
    kim = add(accounts, "kim")
    for number in range(20):
        accounts.register(f"person {number}", RIGHT, address=HOME)
    assert accounts.sign_in("kim", RIGHT, address=HOME).user_id == kim


def test_signing_in_well_uses_up_no_tries(accounts: Accounts) -> None:
    kim = add(accounts, "kim")
    for _ in range(60):
        assert accounts.sign_in("kim", "wrong", address=HOME).user_id is None
        assert accounts.sign_in("kim", RIGHT, address=HOME).user_id == kim
        accounts.per_address.forget(HOME)


def test_bcrypt_hashes_still_open_and_are_renewed(accounts: Accounts) -> None:
    long = "é" * 50  # 100 bytes; bcrypt looked at the first 72
    for number, secret in enumerate((RIGHT, long)):
        old = bcrypt.hashpw(secret.encode()[:72], bcrypt.gensalt(4)).decode()
        kim = users.add_user(accounts.store, actor=OWNER, username=f"kim{number}", password_hash=old)
        assert accounts.sign_in(kim.username, "wrong", address=HOME).user_id is None
        assert accounts.sign_in(kim.username, secret, address=HOME).user_id == kim.id
        after = users.get_user(accounts.store, actor=OWNER, id=kim.id)
        assert after.password_hash is not None and after.password_hash.startswith("$argon2id$")
        assert after.epoch == kim.epoch
        assert accounts.sign_in(kim.username, secret, address=HOME).user_id == kim.id


def test_a_hash_of_lower_cost_is_renewed(accounts: Accounts) -> None:
    accounts.passwords = Passwords(**{**CHEAP, "time_cost": 2})
    weak = Passwords(**CHEAP).hash(RIGHT)
    kim = users.add_user(accounts.store, actor=OWNER, username="kim", password_hash=weak)
    accounts.sign_in("kim", RIGHT, address=HOME)
    after = users.get_user(accounts.store, actor=OWNER, id=kim.id).password_hash
    assert after is not None and "t=2" in after


def test_the_cost_is_what_is_promised() -> None:
    assert "$m=65536,t=3,p=4$" in Passwords().hash(RIGHT)


@pytest.mark.parametrize("stored", ["", "x", "$argon2id$broken", "$2b$nonsense", "$2b$04$" + "a" * 53])
def test_a_broken_hash_lets_nobody_in(stored: str) -> None:
    assert Passwords(**CHEAP).check("x", stored) is False


def test_letters_composed_in_another_way_are_the_same_password() -> None:
    hasher = Passwords(**CHEAP)
    assert hasher.check("cafe\u0301 au lait", hasher.hash("caf\u00e9 au lait"))


@pytest.mark.parametrize("wrong", ["", "short", "a" * 201, "abab" * 5 + "\n", "aaaaaaaaaaaa", "pass\u202eword long"])
def test_a_poor_password_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        clean_password(wrong)
    assert len(wrong) < 5 or wrong not in str(refused.value)


def test_made_passwords_are_good_and_differ() -> None:
    made = {generate() for _ in range(200)}
    assert len(made) == 200 and all(clean_password(each) == each for each in made)


@pytest.mark.parametrize("wrong", ["", "k", "13", "１３", "a" * 41, "-kim", "kim@home", "kim<b>", "kim/", " ", "kim\u200b" * 20])
def test_strange_names_are_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput):
        clean_username(wrong)
    assert clean_username("Mira K. Öz-7") == "Mira K. Öz-7"
    assert clean_username("ｋｉｍ") == "kim"  # full-width letters are no other name


def test_nobody_registers_unless_the_owner_says_so(studio: Studio, accounts: Accounts) -> None:
    with pytest.raises(NotAllowed):
        accounts.register("kim", RIGHT, address=HOME)
    studio.people.set_registration(True)
    kim = accounts.register("kim", RIGHT, address=HOME)
    assert users.get_user(studio.store, actor=OWNER, id=kim).role == "editor"
    assert accounts.sign_in("kim", RIGHT, address=HOME).user_id == kim
    with pytest.raises(Conflict):
        accounts.register("KIM", RIGHT, address=HOME)
    with pytest.raises(InvalidInput):
        accounts.register("lee", "short", address=HOME)
    studio.people.set_registration(False)
    with pytest.raises(NotAllowed):
        accounts.register("lee", RIGHT, address=HOME)


def test_one_address_registers_twenty_at_most(accounts: Accounts) -> None:
    accounts.registration = True
    for number in range(20):
        accounts.register(f"person {number}", RIGHT, address=HOME)
    with pytest.raises(NotAllowed):
        accounts.register("one more", RIGHT, address=HOME)


def test_an_invite_lets_one_person_in_once(studio: Studio, accounts: Accounts) -> None:
    mira = studio.characters.create(name="Mira", trigger_word="mira7x")
    made = studio.people.invite(role="editor", share="characters", character_ids=[mira.id], note="Kim")
    assert made.link("https://studio.example/") == f"https://studio.example/invite?token={made.token}"
    with studio.store.read() as conn:
        assert all(made.token not in str(tuple(row)) for row in conn.execute("SELECT * FROM invites"))
    with pytest.raises(InvalidInput):
        accounts.accept(made.token, "kim", "short", address=HOME)
    kim = accounts.accept(made.token, "kim", RIGHT, address=HOME)
    assert users.get_user(studio.store, actor=OWNER, id=kim).role == "editor"
    assert [s.object_id for s in studio.people.shares(user_id=kim)] == [mira.id]
    with pytest.raises(NotFound):
        accounts.accept(made.token, "lee", RIGHT, address=HOME)
    assert studio.people.state_of(studio.people.invites()[0]) == "used"
    assert [u.username for u in users.list_users(studio.store, actor=OWNER)] == ["owner", "kim"]


def test_of_two_who_accept_at_once_one_gets_in(studio: Studio, accounts: Accounts) -> None:
    made = studio.people.invite()
    start, entered = threading.Barrier(4), []

    def accept(name: str) -> None:
        start.wait()
        try:
            entered.append(accounts.accept(made.token, name, RIGHT, address=HOME))
        except NotFound:
            entered.append(None)

    threads = [threading.Thread(target=accept, args=(f"person {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e is not None for e in entered) == [False, False, False, True]
    assert len(users.list_users(studio.store, actor=OWNER)) == 2  # nobody without an invite stays


def test_an_invite_that_was_taken_back_or_is_old_lets_nobody_in(studio: Studio, accounts: Accounts) -> None:
    made = studio.people.invite()
    studio.people.revoke(made.invite.id)
    assert accounts.invite_of(made.token) is None
    old = studio.people.invite(days=1)
    later = Clock()
    later.now = 4_000_000_000.0
    accounts.clock = later
    with pytest.raises(NotFound):
        accounts.accept(old.token, "kim", RIGHT, address=HOME)
    assert accounts.invite_of("") is None and accounts.invite_of(digest(old.token)) is None


def test_an_invite_of_who_is_no_owner_any_more_lets_nobody_in(studio: Studio, accounts: Accounts) -> None:
    ann = users.add_user(studio.store, actor=OWNER, username="ann", role="owner").id
    made = studio.acting_as(Actor(ann, "owner", "ann")).people.invite()
    assert accounts.invite_of(made.token) is not None
    studio.people.set_role(ann, "editor")
    assert accounts.invite_of(made.token) is None


def test_the_first_owner_stays_whatever_other_owners_want(studio: Studio) -> None:
    ann = users.add_user(studio.store, actor=OWNER, username="ann", role="owner").id
    people = studio.acting_as(Actor(ann, "owner", "ann")).people
    for act in (lambda: people.remove(1), lambda: people.set_active(1, False), lambda: people.set_role(1, "viewer")):
        with pytest.raises(Conflict):
            act()
    assert people.set_role(1, "owner").active
    people.remove(users.add_user(studio.store, actor=OWNER, username="kim").id)


def test_an_invite_whose_character_is_gone_still_lets_in(studio: Studio, accounts: Accounts) -> None:
    mira = studio.characters.create(name="Mira", trigger_word="mira7x")
    made = studio.people.invite(share="characters", character_ids=[mira.id])
    studio.characters.delete(mira.id)
    kim = accounts.accept(made.token, "kim", RIGHT, address=HOME)
    assert studio.people.shares(user_id=kim) == []


@pytest.mark.parametrize(
    "wrong", [{"role": "owner"}, {"days": 0}, {"days": 31}, {"share": "characters"}, {"note": "x" * 101}]
)
def test_a_strange_invite_is_refused(studio: Studio, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        studio.people.invite(**wrong)


def test_the_owners_password_is_made_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.Passwords.__init__, "__kwdefaults__", CHEAP)
    assert not owner_has_one(studio.store)
    made = studio.people.ensure_owner_password()
    assert made is not None and owner_has_one(studio.store)
    assert studio.people.ensure_owner_password() is None
    assert Accounts(studio.store).sign_in("owner", made, address=HOME).user_id == 1


def test_the_hosts_password_is_taken_over_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.Passwords.__init__, "__kwdefaults__", CHEAP)
    studio.people.take_owner_password("")
    assert not owner_has_one(studio.store)
    studio.people.take_owner_password(RIGHT)
    before = users.get_user(studio.store, actor=OWNER, id=1)
    studio.people.take_owner_password(RIGHT)
    assert users.get_user(studio.store, actor=OWNER, id=1) == before


def test_changing_ones_password_needs_the_present_one(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.Passwords.__init__, "__kwdefaults__", CHEAP)
    studio.people.set_password(RIGHT, current="")  # there was none
    with pytest.raises(InvalidInput) as refused:
        studio.people.set_password("another one entirely", current="wrong")
    assert refused.value.field == "current"
    studio.people.set_password("another one entirely", current=RIGHT)


def test_the_current_password_is_guessed_as_seldom_as_at_the_door(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords.Passwords.__init__, "__kwdefaults__", CHEAP)
    studio.people.set_password(RIGHT)
    for _ in range(5):
        with pytest.raises(InvalidInput):
            studio.people.set_password("another one entirely", current="wrong")
    assert studio.people.audit(limit=1)[0].action == "was refused"
    with pytest.raises(NotAllowed):
        studio.acting_as(OWNER).people.set_password("another one entirely", current=RIGHT)
    door = Accounts(studio.store, Passwords(**CHEAP), per_name=studio.people.password_tries)
    assert door.sign_in("Owner", RIGHT, address=HOME).wait_s > 0
    studio.people.password_tries.forget("owner")
    studio.people.set_password("another one entirely", current=RIGHT)


def test_a_new_password_ends_links_and_a_first_one_does_not(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.Passwords.__init__, "__kwdefaults__", CHEAP)
    sessions = Sessions(studio.store, studio.workspace.secrets)
    first = sessions.new_token(1)
    studio.people.set_password(RIGHT)
    assert sessions.use_token(first) == 1
    kim = users.add_user(studio.store, actor=OWNER, username="kim").id
    theirs, mine = sessions.new_token(kim), sessions.new_token(1)
    studio.people.new_password()
    assert (sessions.use_token(theirs), sessions.use_token(mine)) == (kim, None)


def test_the_same_again_within_a_minute_is_one_line(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        audit.add_audit(studio.store, user_id=None, name="vi", action="took out", about="item/1")
        audit.add_audit(studio.store, user_id=1, name="vi", action="took out", about="item/1")
        audit.add_audit(studio.store, user_id=1, name="vi", action="took out", about="item/2")
    assert len(studio.people.audit()) == 3
    monkeypatch.setattr(audit, "FOLDED_S", 0.0)
    audit.add_audit(studio.store, user_id=1, name="vi", action="took out", about="item/1")
    assert len(studio.people.audit()) == 4


def test_the_history_tells_who_did_what(studio: Studio, accounts: Accounts) -> None:
    made = studio.people.invite(note="Kim")
    kim = accounts.accept(made.token, "kim", RIGHT, address=HOME)
    accounts.sign_in("kim", "wrong", address=HOME)
    accounts.sign_in("kim", RIGHT, address=HOME)
    studio.people.set_role(kim, "editor")
    studio.people.remove(kim)
    told = [(e.name, e.action) for e in reversed(studio.people.audit())]
    assert told == [
        ("owner", "invited somebody"), ("kim", "accepted an invite"), ("kim", "was refused"), ("kim", "signed in"),
        ("owner", "changed a role"), ("owner", "locked somebody out"), ("owner", "removed a person"),
    ]  # fmt: skip
    text = "".join(str(e) for e in studio.people.audit())
    assert made.token not in text and RIGHT not in text


def test_the_history_does_not_grow_without_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST_ROWS", 20)
    for number in range(50):
        audit.add_audit(studio.store, user_id=None, name="x" * 999, action="was refused", about=str(number))
    kept = studio.people.audit(limit=1000)
    assert [e.about for e in kept] == [str(n) for n in range(49, 29, -1)]
    assert len(kept[0].name) == audit.LONGEST_TEXT


def test_a_throttle_lets_go_after_its_window(clock: Clock) -> None:
    throttle = Throttle(attempts=3, window_s=60, clock=clock)
    for _ in range(3):
        assert throttle.take("a") == 0
    assert throttle.take("a") == 60
    assert throttle.take("b") == 0
    throttle.give_back("a")
    assert throttle.take("a") == 0 and throttle.take("a") > 0
    clock.now += 61
    assert throttle.take("a") == 0


def test_throttles_and_rates_do_not_grow_without_end() -> None:
    throttle, rate = Throttle(attempts=1, window_s=60), Rate(10)
    for number in range(MOST_KEYS + 500):
        throttle.take(str(number))
        rate.take(str(number))
    assert len(throttle._begun) <= MOST_KEYS and len(rate._left) <= MOST_KEYS


def test_a_rate_is_so_many_a_minute(clock: Clock) -> None:
    rate = Rate(60, clock)
    assert [rate.take("a") for _ in range(60)] == [0.0] * 60
    assert 0 < rate.take("a") <= 1
    assert rate.take("b") == 0
    clock.now += 1
    assert rate.take("a") == 0 and rate.take("a") > 0
    clock.now += 3600
    assert sum(rate.take("a") == 0 for _ in range(200)) == 60


def test_a_removed_persons_files_go_too(studio: Studio, workspace: Workspace) -> None:
    from masuka.store import items

    kim = users.add_user(studio.store, actor=OWNER, username="kim", role="editor").id
    theirs = studio.acting_as(Actor(kim, "editor", "kim"))
    dataset = theirs.datasets.create(name="Mine", trigger_word="kim01")
    files = {}
    for user, name in ((kim, "kims.png"), (1, "owners.png")):
        files[user] = workspace.items / name
        files[user].write_bytes(b"x")
        items.add_item(
            studio.store, actor=Actor(user), file=workspace.relative(files[user]), width=1, height=1,
            prompt="", seed=1, settings={},
        )  # fmt: skip
    studio.people.remove(kim)
    assert not files[kim].exists() and files[1].exists()
    with pytest.raises(NotFound):
        studio.datasets.get(dataset.id)
    with pytest.raises(Conflict):
        studio.people.remove(1)


def test_a_removed_person_leaves_nothing_on_the_disk(studio: Studio, workspace: Workspace) -> None:
    """Also behind more than one page of what they saw of others, and what is in no list."""
    from masuka.jobs import queue
    from masuka.store import items, jobs, models, runs

    kim = users.add_user(studio.store, actor=OWNER, username="kim", role="editor").id
    theirs = Actor(kim, "editor", "kim")
    studio.people.share(kim, "all")

    def draw(by: Actor, name: str) -> Path:
        file = workspace.items / name
        file.write_bytes(b"x")
        items.add_item(
            studio.store, actor=by, file=workspace.relative(file), width=1, height=1, prompt="", seed=1, settings={}
        )
        return file

    gone = [draw(theirs, "kims.png")]
    with studio.store.write():
        kept = [draw(OWNER, f"{number}.png") for number in range(1001)]
    gone += [workspace.uploads / f"{kim}-{'a' * 24}" / "0000" / "face.png", workspace.adapters / "hidden" / "x.safetensors"]
    kept.append(workspace.uploads / f"{kim}1-{'a' * 24}" / "0000" / "face.png")
    job = queue.add_job(studio.store, actor=theirs, kind="draw_images", title="t", request={}, params={})
    queue.ask_cancel(studio.store, actor=OWNER, job_id=job.id)
    gone += [workspace.jobs / str(job.id) / "log.txt", workspace.items / "previews" / f"{job.id}.webp"]
    run = runs.add_run(studio.store, actor=theirs, name="r", base="pocket", family="f", config={})
    gone.append(workspace.runs / f"{run.id:05d}" / "state.bin")
    for file in (*gone[1:], kept[-1]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    models.add_model(
        studio.store, actor=theirs, kind="adapter", name="L", path=workspace.relative(gone[2]), active=False
    )
    studio.people.remove(kim)
    assert [f for f in gone if f.exists()] == [] and all(f.exists() for f in kept)
    assert jobs.get_pulse(studio.store, id=job.id) is None
    assert len(items.list_items(studio.store, actor=OWNER, limit=None)) == 1001
