<?php
// A handler in PHP: decodes the reading of a device, "dev-1,42.5,1678886400".
//
//   faas-worker --handler 'php reading.php'
declare(strict_types=1);

// Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
const VALUE = '/^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?$/D';
const TIMESTAMP = '/^(?:0|[1-9][0-9]{0,14})$/D';

class Refused extends RuntimeException
{
    public function __construct(public readonly int $status, string $message)
    {
        parent::__construct($message);
    }
}

// The function: returns a value for json_encode, or throws.
function handle(string $payload): mixed
{
    $fields = explode(',', $payload);
    if (count($fields) !== 3 || $fields[0] === ''
        || !preg_match(VALUE, $fields[1]) || !preg_match(TIMESTAMP, $fields[2])) {
        throw new Refused(422, 'expected device,value,timestamp');
    }
    [$device, $value, $timestamp] = $fields;
    return ['device' => $device, 'value' => (float) $value, 'timestamp' => (int) $timestamp];
}

// ---- The loop, which needs no change ---------------------------------------------------------------

const JSON = JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE;

// Each reply is one write, which PHP does not hold back.
function write(array $message): void
{
    fwrite(STDOUT, json_encode($message, JSON) . "\n");
}

function answer(int $id, string $payload): void
{
    try {
        write(['id' => $id, 'result' => handle($payload)]);
    } catch (Refused $refused) {
        $error = ['message' => $refused->getMessage(), 'status' => $refused->status];
        write(['id' => $id, 'error' => $error]);
    } catch (Throwable $cause) {
        fwrite(STDERR, "$cause\n");
        write(['id' => $id, 'error' => ['message' => $cause->getMessage(), 'status' => 500]]);
    }
}

// Output of the function, and PHP's own warnings, go to the log, and never between the replies.
ini_set('display_errors', 'stderr');
ob_start(function (string $text): string {
    fwrite(STDERR, $text);
    return '';
}, 1);

// Ids are repeated, and each reply is written before the next request is read: the worker may write
// requests ahead of time.
write(['ready' => true, 'concurrency' => 1]);
while (($line = fgets(STDIN)) !== false) {
    $request = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
    answer($request['id'], $request['payload']);
}
