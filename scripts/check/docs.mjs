// Opens /docs of a running worker in headless Chromium, sends a payload from it, and looks for the
// answer on the page. Any failed request, console error or request to elsewhere is a failure.
//
// node docs.mjs URL SCREENSHOT, with playwright-core in NODE_PATH and the browser in CHROMIUM
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const [url, screenshot] = process.argv.slice(2);
const PAYLOAD = "dev-7,21.5,1678886400";
// Not a loopback name, as behind a load balancer: some of the page's code asks for that.
const NAME = "worker.test";

const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
        "--no-sandbox", // as root, as in a container, Chromium has none
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        `--host-resolver-rules=MAP ${NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1`,
    ],
    timeout: 30_000,
});

/** A page that holds all against `origin` that it sees. */
async function watched(origin) {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } });
    page.setDefaultTimeout(20_000);
    const seen = { requests: [], wrong: [] };
    page.on("request", (request) => {
        seen.requests.push(request.url());
        const from = new URL(request.url());
        // A data: URL is no request: it is in the style sheet.
        if (from.protocol !== "data:" && from.origin !== origin) {
            seen.wrong.push(`a request leaves ${origin}: ${request.url()}`);
        }
    });
    page.on("requestfailed", (request) =>
        seen.wrong.push(`failed: ${request.url()}: ${request.failure()?.errorText}`));
    page.on("response", (response) => {
        if (response.status() >= 400) {
            seen.wrong.push(`${response.status()}: ${response.url()}`);
        }
    });
    page.on("pageerror", (error) => seen.wrong.push(`error on the page: ${error}`));
    page.on("console", (message) => {
        if (message.type() === "error") {
            seen.wrong.push(`console: ${message.text()}`);
        }
    });
    return { page, seen };
}

/** Opens the page, sends the payload, and returns what the page then shows of the answer. */
async function sendFrom(page, origin) {
    await page.goto(`${origin}/docs`, { waitUntil: "networkidle" });
    assert.equal(await page.title(), "faas-worker");
    await page.screenshot({ path: screenshot, fullPage: true });
    const operation = page.locator("#operations-function-invoke");
    await operation.locator(".opblock-summary-control").click();
    await operation.locator("textarea.body-param__text").fill(JSON.stringify({ payload: PAYLOAD }));
    await operation.getByRole("button", { name: "Execute" }).click();
    const live = operation.locator(".live-responses-table");
    await live.waitFor();
    return live;
}

try {
    for (const origin of [url, url.replace("127.0.0.1", NAME)]) {
        const { page, seen } = await watched(origin);
        const live = await sendFrom(page, origin).catch((error) => {
            console.error(seen.wrong.join("\n"));
            throw error;
        });
        assert.equal((await live.locator(".response-col_status").first().innerText()).trim(), "Code");
        const status = await live.locator("tr.response .response-col_status").first().innerText();
        assert.match(status.trim(), /^200\b/);
        const answer = await live.locator(".response-col_description").last().innerText();
        for (const part of ['"device_id": "dev-7"', '"metric_value": 21.5', "x-request-id: "]) {
            assert.ok(answer.includes(part), `no ${part} in ${answer}`);
        }
        await live.scrollIntoViewIfNeeded();
        await page.screenshot({ path: screenshot.replace(".png", "-sent.png") });
        assert.ok(seen.requests.includes(`${origin}/openapi.json`), seen.requests.join("\n"));
        assert.deepEqual(seen.wrong, [], seen.wrong.join("\n"));
        console.log(`${origin}/docs: ${seen.requests.length} requests, none failed, answered ${status.trim()}`);
        await page.close();
    }
} finally {
    await browser.close();
}
