package main

import (
	"net/url"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/reflect/protoreflect"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// toInput makes the `input` document of a CheckRequest: its fields by their names in protobuf's JSON, and the path in
// pieces. It goes from message to OPA's values directly; by way of JSON text it would cost several times as much.
func toInput(request *auth.CheckRequest) (ast.Value, error) {
	http := request.GetAttributes().GetRequest().GetHttp()
	parsed, err := url.Parse(http.GetPath())
	if err != nil {
		return nil, err
	}
	pieces := []*ast.Term{}
	for _, piece := range strings.Split(strings.TrimLeft(parsed.Path, "/"), "/") {
		pieces = append(pieces, ast.StringTerm(piece))
	}
	query := ast.NewObject()
	for name, values := range parsed.Query() {
		list := []*ast.Term{}
		for _, value := range values {
			list = append(list, ast.StringTerm(value))
		}
		query.Insert(ast.StringTerm(name), ast.ArrayTerm(list...))
	}
	return ast.NewObject(
		[2]*ast.Term{ast.InternedTerm("attributes"), fromMessage(request.GetAttributes().ProtoReflect())},
		[2]*ast.Term{ast.InternedTerm("parsed_path"), ast.ArrayTerm(pieces...)},
		[2]*ast.Term{ast.InternedTerm("parsed_query"), ast.NewTerm(query)},
	), nil
}

// headerMap is where a proxy that sends headers raw puts them; policies find them as `headers`, as if sent as text.
const headerMap protoreflect.Name = "header_map"

func fromMessage(message protoreflect.Message) *ast.Term {
	object := ast.NewObject()
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		name := field.JSONName()
		if field.Name() == headerMap {
			object.Insert(ast.StringTerm("headers"), fromHeaderMap(value.Message()))
			return true
		}
		object.Insert(ast.StringTerm(name), fromField(field, value))
		return true
	})
	return ast.NewTerm(object)
}

func fromField(field protoreflect.FieldDescriptor, value protoreflect.Value) *ast.Term {
	switch {
	case field.IsMap():
		object := ast.NewObject()
		value.Map().Range(func(key protoreflect.MapKey, each protoreflect.Value) bool {
			object.Insert(ast.StringTerm(key.String()), fromScalarOrMessage(field.MapValue(), each))
			return true
		})
		return ast.NewTerm(object)
	case field.IsList():
		list := make([]*ast.Term, value.List().Len())
		for i := range list {
			list[i] = fromScalarOrMessage(field, value.List().Get(i))
		}
		return ast.ArrayTerm(list...)
	default:
		return fromScalarOrMessage(field, value)
	}
}

func fromScalarOrMessage(field protoreflect.FieldDescriptor, value protoreflect.Value) *ast.Term {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return fromMessage(value.Message())
	case protoreflect.BoolKind:
		return ast.BooleanTerm(value.Bool())
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return ast.IntNumberTerm(int(value.Int()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return ast.IntNumberTerm(int(value.Uint()))
	case protoreflect.BytesKind:
		return ast.StringTerm(string(value.Bytes()))
	default:
		return ast.StringTerm(value.String())
	}
}

func fromHeaderMap(message protoreflect.Message) *ast.Term {
	object := ast.NewObject()
	fields := message.Descriptor().Fields()
	list := message.Get(fields.ByName("headers")).List()
	for i := range list.Len() {
		header := list.Get(i).Message()
		names := header.Descriptor().Fields()
		key, raw := header.Get(names.ByName("key")).String(), header.Get(names.ByName("raw_value")).Bytes()
		object.Insert(ast.StringTerm(key), ast.StringTerm(string(raw)))
	}
	return ast.NewTerm(object)
}
