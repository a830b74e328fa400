# Repeats ids, announces nothing, and prints each payload as it is: quotes and line breaks too.
while IFS= read -r line; do
    id=${line#'{"id":'}
    id=${id%%,*}
    payload=${line#*'"payload":"'}
    payload=${payload%'"}'}
    text=
    rest=$payload
    while :; do
        case $rest in
            *'\"'*) text=$text${rest%%'\"'*}\" rest=${rest#*'\"'} ;;
            *) break ;;
        esac
    done
    printf 'working on %b\n' "$text$rest"
    case $payload in
        request*) printf '{"id":%s,"result":{"id":%s,"payload":"%s"}}\n' "$id" "$id" "$payload" ;;
        *) printf '{"id":%s,"result":"%s"}\n' "$id" "$payload" ;;
    esac
done
