#!/usr/bin/env node
// A handler in TypeScript, run without a build: decodes the reading of a device,
// "dev-1,42.5,1678886400".
//
//   faas-worker --handler 'node reading.mts'                               Node 22.18 or later
//   faas-worker --handler 'node --experimental-strip-types reading.mts'    Node 22.6 or later
//
// Node drops the types and checks none; `tsc --noEmit` does, with @types/node.
import { createInterface } from 'node:readline';

// Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
const READING = /^([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})$/;

interface Reading {
    device: string;
    value: number;
    timestamp: number;
}

class Refused extends Error {
    status: number;

    constructor(status: number, message: string) {
        super(message);
        this.status = status;
    }
}

// The function: returns a value for JSON.stringify, or throws. It may await.
async function handle(payload: string): Promise<Reading> {
    const reading = READING.exec(payload);
    if (!reading) {
        throw new Refused(422, 'expected device,value,timestamp');
    }
    const [, device, value, timestamp] = reading;
    return { device, value: Number(value), timestamp: Number(timestamp) };
}

// ---- The loop, which needs no change ----------------------------------------------------------------

// How many requests a process works on at once, while functions await.
const CONCURRENCY = 16;

function write(message: object): void {
    process.stdout.write(JSON.stringify(message) + '\n');
}

async function answer({ id, payload }: { id: number; payload: string }): Promise<void> {
    try {
        // Without a value JSON.stringify would leave the result out.
        write({ id, result: (await handle(payload)) ?? null });
    } catch (error) {
        if (error instanceof Refused) {
            write({ id, error: { message: error.message, status: error.status } });
        } else {
            console.error(error);
            write({ id, error: { message: String(error), status: 500 } });
        }
    }
}

// Output of the function goes to the log, and never between the replies.
console.log = console.info = console.debug = console.error;

write({ ready: true, concurrency: CONCURRENCY });
const requests = createInterface({ input: process.stdin });
requests.on('line', (line) => answer(JSON.parse(line)));
