"""People of a project: invitations, who takes part, groups, for whom items are, how each one works; for leads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

import altair as alt
import polars as pl
import streamlit as st

from labeling_ui.desk.desk import PAUSE, Desk
from labeling_ui.projects.groups import Rule, chosen, groups, put_group, put_rules, rules
from labeling_ui.projects.members import MemberRole, add_member, members, remove_member
from labeling_ui.projects.people import Person, add_key, invite, keys, people, remove_key
from labeling_ui.projects.project import Project, note_change, projects
from labeling_ui.quality import PersonReport, people_reports, skill_intervals
from labeling_ui.web import studio
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.my_work import counted, percent
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("People", anchor=False)
    name = choose_project()
    _invite(person)
    _tokens(person)
    if name is None:
        return
    here = studio.current()
    project, desk, work = here.project(name), here.desk(name), here.work(name).frame()
    _members(project, person)
    _groups(person)
    _assignment(project, desk, person)
    if not work.is_empty():
        _work(desk, person, work)
    _pauses(name)


def _invite(person: Person) -> None:
    with st.form("invite", clear_on_submit=True):
        names = st.text_input("Invite annotators", placeholder="names, with commas between")
        sent = st.form_submit_button("Make their links", icon=":material/person_add:")
    if not sent:
        return
    for name in (one.strip() for one in names.split(",") if one.strip()):
        try:
            token = invite(studio.current().ledger, person, name)
        except RmkitError as error:
            st.error(harmless(str(error)))
            continue
        st.caption(f"{harmless(name)}: this link is shown this once")
        st.code(f"{_address()}/enter?token={token}", language=None)


def _tokens(person: Person) -> None:
    """Tokens of the lead's own for programs, one each, so that each can be ended alone."""
    ledger = studio.current().ledger
    own = keys(ledger, person)
    with st.expander(f"Your tokens for programs: {len(own)}", icon=":material/key:"):
        for label in own:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(label)
                if st.button("End this token", key=f"end-token-{label}", type="tertiary"):
                    remove_key(ledger, person, label)
                    st.rerun()
        with st.form("token", clear_on_submit=True):
            label = st.text_input("What for", placeholder="nightly export")
            if st.form_submit_button("Make a token"):
                try:
                    token = add_key(ledger, person, label.strip())
                except RmkitError as error:
                    st.error(harmless(str(error)))
                    return
                st.caption("This token is shown this once. The API: GET /api/openapi.json")
                st.code(token, language=None)


def _address() -> str:
    """Where this studio is, as the lead's browser knows it."""
    summary = urlsplit(st.context.url or "")
    return f"{summary.scheme}://{summary.netloc}" if summary.netloc else ""


def _members(project: Project, person: Person) -> None:
    """Who takes part; names of accounts come from the ledger, so that nobody is added who has none."""
    ledger = studio.current().ledger
    inside, known = members(ledger, project.name), groups(ledger)
    closed = inside or project.task.kind == "adjudication"
    st.subheader("Members" if closed else "Members: everyone with an account", anchor=False)
    if inside:
        st.dataframe([{"name": name, "role": role} for name, role in inside.items()], hide_index=True)
    with st.form("members", clear_on_submit=True):
        options = [one.name for one in people(ledger)] + [f"group {name}" for name in known]
        who = st.multiselect("Who", options)
        roles = [*get_args(MemberRole), "no member"]
        first = roles.index("adjudicator") if project.task.kind == "adjudication" else 0
        role = st.segmented_control("As", roles, default=roles[first], required=True)
        if st.form_submit_button("Change members") and who and role:
            person.require("lead", "change who takes part")
            for name in dict.fromkeys(
                one for option in who for one in known.get(option.removeprefix("group "), [option])
            ):
                if role != "no member":
                    add_member(ledger, project.name, name, role=role)
                elif name in inside:
                    remove_member(ledger, project.name, name)
            st.rerun()


def _groups(person: Person) -> None:
    ledger = studio.current().ledger
    known = groups(ledger)
    with st.expander(f"Groups: {len(known)}", icon=":material/groups:"):
        if known:
            st.dataframe(
                [{"group": name, "people": ", ".join(inside)} for name, inside in known.items()], hide_index=True
            )
        with st.form("group", clear_on_submit=True):
            name = st.selectbox("Group", list(known), index=None, accept_new_options=True)
            inside = st.multiselect("People in it (none ends the group)", [one.name for one in people(ledger)])
            if st.form_submit_button("Save the group") and name:
                try:
                    put_group(ledger, person, name, inside)
                except RmkitError as error:
                    st.error(harmless(str(error)))
                    return
                for project in projects(ledger):
                    note_change(ledger, project.name)
                st.rerun()


def _assignment(project: Project, desk: Desk, person: Person) -> None:
    """Rules that reserve items: chosen by hand, by a text of their prompt, or by a range of their numbers."""
    ledger = studio.current().ledger
    known = rules(ledger, project.name)
    with st.expander(
        f"Assignment: {len(known)} rules" if known else "Assignment: every item is for everyone",
        icon=":material/assignment_ind:",
    ):
        st.caption("A reserved item goes to nobody else, and comes first to those it is for.")
        for at, rule in enumerate(known):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(f"{_spelled(rule)}: {len(chosen(rule, desk.items))} items")
                if st.button("End this rule", key=f"end-rule-{at}", type="tertiary"):
                    _put(project, person, [*known[:at], *known[at + 1 :]])
        with st.form("rule", clear_on_submit=True):
            who = st.multiselect(
                "For", [one.name for one in people(ledger)] + [f"group {name}" for name in groups(ledger)]
            )
            numbers = st.text_input("Items by number", placeholder="3, 17, 20")
            contains = st.text_input("Items whose prompt contains")
            cells = st.columns(2)
            first = cells[0].number_input("From item number", min_value=0, value=None, step=1)
            last = cells[1].number_input("To item number", min_value=0, value=None, step=1)
            if st.form_submit_button("Reserve them"):
                values = {"contains": contains, "first": first, "last": last}
                _put_new(project, person, known, who, numbers, values)


def _put_new(
    project: Project, person: Person, known: list[Rule], who: list[str], numbers: str, values: Mapping[str, Any]
) -> None:
    try:
        rule = Rule(
            people=tuple(one for one in who if not one.startswith("group ")),
            groups=tuple(one.removeprefix("group ") for one in who if one.startswith("group ")),
            items=tuple(int(one) for one in numbers.replace(",", " ").split()),
            **values,
        )
    except ValueError:
        st.error("Items by number: whole numbers with commas between.")
        return
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    _put(project, person, [*known, rule])


def _put(project: Project, person: Person, new: list[Rule]) -> None:
    ledger = studio.current().ledger
    put_rules(ledger, person, project.name, new)
    note_change(ledger, project.name)
    st.rerun()


def _spelled(rule: Rule) -> str:
    who = ", ".join([*rule.people, *(f"group {name}" for name in rule.groups)])
    what = [f"{len(rule.items)} chosen by hand"] if rule.items else []
    what += [f"prompt contains {rule.contains!r}"] if rule.contains else []
    what += [f"from {rule.first}"] if rule.first is not None else []
    what += [f"to {rule.last}"] if rule.last is not None else []
    return f"{who}: {', '.join(what)}"


def _work(desk: Desk, person: Person, work: pl.DataFrame) -> None:
    reports = people_reports(work)
    st.subheader("How they work", anchor=False)
    paused, sure = desk.paused(), skill_intervals(work)
    rows = [
        {
            "name": report.name + (" (paused)" if report.name in paused else ""),
            "to look at": "; ".join(report.warnings()),
            "answers": report.answers,
            "skill": _skill(report, sure),
            "known items": counted(report.gold),
            "with others": counted(report.with_others),
            "repeats alike": counted(report.repeated_same),
            "first shown": percent(report.first_shown),
            "longer": percent(report.longer),
            "seconds": report.active_s,
            "skipped": report.skipped,
        }
        for report in reports
    ]
    skill = st.column_config.TextColumn(help="chance of the true verdict (Dawid-Skene), 95% bootstrap over items")
    seconds = st.column_config.NumberColumn(format="%.1f", help="median of active seconds an answer")
    st.dataframe(pl.DataFrame(rows), hide_index=True, column_config={"skill": skill, "seconds": seconds})
    _intervals(reports)
    with st.expander("Pause or resume a person", icon=":material/pause_circle:"), st.form("pause"):
        name = st.selectbox("Who", [report.name for report in reports])
        what = st.segmented_control("What", ["pause", "resume"], default="pause", required=True)
        reason = st.text_input("Why (the person reads it)")
        if st.form_submit_button("Do it") and name:
            if not reason.strip():
                st.error("Say why: it is kept, and the person reads it.")
                return
            desk.pause(person, name, paused=what == "pause", reason=reason)
            st.rerun()


def _skill(report: PersonReport, sure: Mapping[str, tuple[float, float]]) -> str:
    if report.skill is None:
        return "–"
    bounds = sure.get(report.name)
    return f"{report.skill:.2f}" + (f", {bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else "")


def _intervals(reports: list[PersonReport]) -> None:
    """Shares with intervals, where there are any: of known items right, and of answers that others share."""
    rows = [
        {"name": report.name, "of": what, "share": share.value, "low": share.interval[0], "high": share.interval[1]}
        for report in reports
        for what, share in (("known items right", report.gold), ("the same as others", report.with_others))
        if share.n
    ]
    if rows:
        scale = alt.Scale(domain=[0, 1])
        chart = alt.Chart(pl.DataFrame(rows))
        what = alt.Color("of:N", title=None, legend=alt.Legend(orient="top"))
        who, apart = alt.Y("name:N", title=None), alt.YOffset("of:N")
        line = chart.mark_rule(strokeWidth=3).encode(
            x=alt.X("low:Q", title="share, 95% interval", scale=scale), x2="high", y=who, yOffset=apart, color=what
        )
        points = chart.mark_point(filled=True, size=90).encode(x="share:Q", y=who, yOffset=apart, color=what)
        st.altair_chart(line + points, height=60 + 24 * len(rows))


def _pauses(name: str) -> None:
    events = [
        recorded.event
        for recorded in studio.current().ledger.events(kinds=[PAUSE])
        if recorded.event.payload["project"] == name
    ]
    if events:
        with st.expander("Pauses so far", icon=":material/history:"):
            rows = [
                {
                    "time": event.time,
                    "by": event.actor,
                    "who": event.payload["rater"],
                    "what": "paused" if event.payload["paused"] else "resumed",
                    "why": event.payload["reason"],
                }
                for event in reversed(events)
            ]
            st.dataframe(pl.DataFrame(rows), hide_index=True)
