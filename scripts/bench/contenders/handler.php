<?php
// The function in a process behind the worker: handler.php [CONCURRENCY]. Without a concurrency
// nothing is announced, and the process is given one request at a time.

require __DIR__ . '/function.php';

if (isset($argv[1])) {
    fwrite(STDOUT, '{"ready":true,"concurrency":' . $argv[1] . "}\n");
}
while (($line = fgets(STDIN)) !== false) {
    $request = json_decode($line, true);
    $reply = ['id' => $request['id'], 'result' => decode($request['payload'])];
    fwrite(STDOUT, json_encode($reply) . "\n");
}
