"""What a person does on the page of rows, and what they see of it."""


def shown(page) -> list[str]:
    """The ids of the rows in the list; at most a screen of them."""
    page.wait_for_selector("body[data-shown]")
    items = page.locator(".item").all()
    return [item.get_attribute("data-id") for item in sorted(items, key=lambda item: int(item.get_attribute("id")[5:]))]


def search(page, query: str) -> list[str]:
    page.fill("#query", query)
    page.wait_for_timeout(60)
    return shown(page)


def choose(page, name: str, value: str) -> list[str]:
    if page.locator("#filters").is_hidden():
        page.click("#filter-button")
    page.select_option(f"#filter-{name}", value)
    page.wait_for_timeout(60)
    return shown(page)


def heading(page) -> str:
    return page.inner_text("#row h1")


def marked(page, answer: int, tag: str) -> list[str]:
    return page.locator(f'[data-answer="{answer}"]').locator(tag).all_inner_texts()
